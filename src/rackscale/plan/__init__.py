"""Layouts of a model on a system: what they reach, which is best, and why. Loads no torch."""

from rackscale.plan.compare import compare
from rackscale.plan.planner import plan
from rackscale.plan.question import Question
from rackscale.plan.sweep import sweep
from rackscale.plan.validate import validate

__all__ = ["Question", "compare", "plan", "sweep", "validate"]
