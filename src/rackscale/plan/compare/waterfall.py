"""Where a ratio of two systems comes from: every set of their differences planned for, and shared out."""

from typing import assert_never

import numpy as np
from numpy.typing import NDArray

from rackscale.core import SpecError
from rackscale.cost.money import usd_per_hour_of
from rackscale.cost.power import watts_of
from rackscale.plan.beliefs import Beliefs
from rackscale.plan.compare.hybrid import Switches, switches
from rackscale.plan.compare.level import Level, at_level
from rackscale.plan.compare.shapley import shapley
from rackscale.plan.interval import NORMAL_95
from rackscale.plan.question import Question
from rackscale.plan.types import Objective, WaterfallStep

Array = NDArray[np.float64]


class Corners:
    """Levels of service of combinations, each planned for once: two baselines have many in common."""

    def __init__(self, beliefs: Beliefs) -> None:
        self.beliefs = beliefs
        self._known: list[tuple[Question, Level | None]] = []

    def at(self, question: Question) -> Level | None:
        """None where nothing meets it, or the model does not fit."""
        for known, level in self._known:
            if known == question:
                return level
        try:
            level = at_level(question, self.beliefs)
        except SpecError:
            level = None
        self._known.append((question, level))
        return level


def waterfall(first: Level, last: Level, corners: Corners) -> tuple[WaterfallStep, ...]:
    """Factors that multiply to the last's over the first's, in tokens per second by the questions' objective:
    power and price are known and come last. Intervals are of what the parameters leave open.

    Raises SpecError where no order of the differences keeps the level of service.
    """
    differences = switches(first.question, last.question)
    shares = shapley(_values(differences, first, last, corners))
    steps: list[WaterfallStep] = []
    done = 1.0
    for name, share in zip(differences.names.values(), shares, strict=True):
        factor, doubt = float(np.exp(share[0])), float(np.exp(NORMAL_95 * share[1:].std()))
        done *= factor
        steps.append(
            WaterfallStep(step=name, factor=factor, cumulative=done, low=factor / doubt, high=factor * doubt)
        )
    name, factor = _of_objective(first, last)
    if name:
        known = {"factor": factor, "low": factor, "high": factor, "cumulative": done * factor}
        steps.append(WaterfallStep(step=name, **known))
    return tuple(steps)


def per(level: Level, objective: Objective) -> float:
    """What a chip takes of what the objective counts by: itself, watts, or dollars an hour."""
    question = level.question
    match objective:
        case Objective.CHIP:
            return 1.0
        case Objective.MW:
            return watts_of(question.system.power_w, question.power)
        case Objective.USD:
            return usd_per_hour_of(question.system.usd_per_chip_hour, question.price)
        case _:
            assert_never(objective)


def _of_objective(first: Level, last: Level) -> tuple[str, float]:
    question = last.question
    factor = per(first, question.objective) / per(last, question.objective)
    words = {
        Objective.CHIP: "",
        Objective.MW: f"power, {question.power.upper() if question.power == 'it' else question.power}",
        Objective.USD: f"price, {question.price}",
    }
    return words[question.objective], factor


def _values(differences: Switches, first: Level, last: Level, corners: Corners) -> Array:
    """[2^n, 1 + K]; NaN where nothing meets the level. The ends are the two systems as they are."""
    count = 1 << len(differences.names)
    values = np.full((count, len(first.logs)), np.nan)
    values[0], values[-1] = first.logs, last.logs
    for number in range(1, count - 1):
        level = corners.at(differences.question(number))
        if level is not None:
            values[number] = level.logs
    return values
