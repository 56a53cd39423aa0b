"""Scaling laws: what a plan reaches as parts of the system, the model or the requests grow."""

from rackscale.plan.sweep.paths import AXES, Axis
from rackscale.plan.sweep.ranges import read_range
from rackscale.plan.sweep.run import sweep
from rackscale.plan.sweep.types import Answer, Fit, Row, Sweep

__all__ = ["AXES", "Answer", "Axis", "Fit", "Row", "Sweep", "read_range", "sweep"]
