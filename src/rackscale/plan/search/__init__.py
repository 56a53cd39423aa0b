"""Every layout of a model on chips: which of them no other beats, and which meets a level of service best."""

from rackscale.plan.search.evaluate import Deployments
from rackscale.plan.search.found import Frontier, best, search

__all__ = ["Deployments", "Frontier", "best", "search"]
