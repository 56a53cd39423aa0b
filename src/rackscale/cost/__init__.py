"""What a step takes on chips that are not here: seconds, bytes, joules. Each operator is an `Estimate`."""

from rackscale.cost.chips import Chips
from rackscale.cost.estimate import Estimate
from rackscale.cost.formats import Precision
from rackscale.cost.layouts import Layouts
from rackscale.cost.parameters import Parameters, draws, fitted, from_priors
from rackscale.cost.shape import Shape
from rackscale.cost.step import Step, step
from rackscale.cost.work import Batch, Work

__all__ = [
    "Batch",
    "Chips",
    "Estimate",
    "Layouts",
    "Parameters",
    "Precision",
    "Shape",
    "Step",
    "Work",
    "draws",
    "fitted",
    "from_priors",
    "step",
]
