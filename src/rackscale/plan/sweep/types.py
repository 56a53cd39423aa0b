"""What a sweep says: plain data that the verb prints."""

from collections.abc import Mapping
from dataclasses import dataclass

from rackscale.plan.sweep.regimes import Regime
from rackscale.plan.types import PlannedDeployment

Value = float | str


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """values: of what is varied, by path. deployment: the best one with them; None where there is none, and
    then why, in words. reached: tokens per second by the sweep's objective."""

    values: Mapping[str, Value]
    deployment: PlannedDeployment | None
    reached: float | None
    why: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Fit:
    """A regime of the curve over one path. at: the values of the other paths, which stay. binding: what binds
    in most of the regime's deployments."""

    over: str
    at: Mapping[str, Value]
    binding: str
    regime: Regime


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """question: in words. best: the row that reaches most. gain: its share of what the model on the system
    reaches as they are; None where they reach nothing. least: the smallest values that reach nearly as much,
    where one number is varied."""

    question: str
    best: Row
    gain: float | None
    least: Row | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Sweep:
    """rows: in rising order of what is varied, the first path slowest. answer: None where no row reaches
    anything. unit: of what is reached."""

    model: str
    system: str
    isl: int
    osl: int
    interactivity: float | None
    unit: str
    rows: tuple[Row, ...]
    fits: tuple[Fit, ...]
    answer: Answer | None
