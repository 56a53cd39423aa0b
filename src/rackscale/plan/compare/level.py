"""The best deployment at a level of service, and what parameters leave open of its throughput there."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from rackscale.core import SpecError
from rackscale.cost import Parameters
from rackscale.plan.beliefs import NEW, Beliefs
from rackscale.plan.compare.level_noise import level_noise
from rackscale.plan.interval import Noise
from rackscale.plan.question import Question
from rackscale.plan.search import Frontier, best, search
from rackscale.plan.search.evaluate import measured
from rackscale.plan.search.found import replace_concurrency

Array = NDArray[np.float64]

LADDER = np.geomspace(0.25, 2.5, 33)  # of the concurrency: draws meet the level at another one
SLOWER = 0.8  # times the interactivity that is asked for: a curve's slope is taken between both


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Level:
    """found: of one deployment. logs [1 + K]: logarithms of tokens per second and chip, by the best
    parameters and by each draw; a draw has the same layout under as many requests as meet the level."""

    question: Question
    found: Frontier
    logs: Array

    @property
    def tokens_per_s_per_chip(self) -> float:
        return float(self.found.tokens_per_s_per_chip[0])

    @property
    def chips(self) -> int:
        return int(self.found.deployments.chips[0])


def at_level(question: Question, beliefs: Beliefs, frontier: Frontier | None = None) -> Level | None:
    """None where nothing meets it. frontier: what `search` found without a level."""
    found = best(question, beliefs.best, frontier)
    if found is None:
        return None
    own = float(np.log(found.tokens_per_s_per_chip[0]))
    logs = throughput(question, found, beliefs.all)
    return Level(question=question, found=found, logs=own + logs - logs[0])


def need_level(question: Question, beliefs: Beliefs, frontier: Frontier) -> Level:
    """Raises SpecError where nothing meets it, with what would be the closest."""
    level = at_level(question, beliefs, frontier)
    if level is None:
        fastest = float(frontier.tokens_per_s_per_user.max()) if len(frontier) else 0.0
        role = "" if question.role == "auto" else f" ({question.role})"
        raise SpecError(
            f"{question.system.name}{role} gives no user of {question.model.name} "
            f"{question.interactivity:g} tokens/s",
            hint=f"its fastest is {fastest:.3g}" if fastest else "allow a longer time to the first token",
        )
    return level


def throughput(question: Question, found: Frontier, parameters: Parameters) -> Array:
    """Logarithms [K] at the question's interactivity, of one layout; at the fewest requests where even those
    are slower."""
    rows = found.deployments.take(np.zeros(len(LADDER), dtype=np.intp))
    concurrency = np.maximum(rows.concurrency * LADDER, 1.0)
    loop = measured(question, replace_concurrency(rows, concurrency), question.with_skew(parameters))
    tpot_s, rates, _ = np.broadcast_arrays(loop.tpot_s, loop.tokens_per_s_per_chip, LADDER[None])
    slowness, logs = np.maximum.accumulate(np.log(tpot_s), axis=1), np.log(rates)
    asked = -np.log(question.interactivity or 1 / found.tpot_s[0])
    return np.array([np.interp(asked, across, along) for across, along in zip(slowness, logs, strict=True)])


def noise(level: Level, beliefs: Beliefs) -> Noise:
    """How far a measured curve may lie below and above, at the same interactivity, in logarithms.

    Of systems that the fit has never seen no curves are known, only what rows deviate: where steps are slower
    than predicted, both the users and the throughput are, so both deviations add up along the curve.
    """
    system = level.question.system.name
    chips = float(level.found.deployments.chips[0] / level.found.copies[0])
    regime = beliefs.regime(system, chips)
    if regime != NEW:
        return level_noise(beliefs)[regime]
    rise = _slope(level, beliefs)
    rate, tpot = beliefs.noise[regime, "tokens_per_s_per_gpu"], beliefs.noise[regime, "tpot"]
    return Noise(low=rate.low + rise * tpot.high, high=rate.high + rise * tpot.low)


def _slope(level: Level, beliefs: Beliefs) -> float:
    """How much throughput goes down as interactivity goes up along the layout's curve, both in logarithms."""
    asked = level.question.interactivity or 1 / level.found.tpot_s[0]
    slower = replace(level.question, interactivity=SLOWER * asked)
    there = throughput(slower, level.found, beliefs.best) - throughput(
        level.question, level.found, beliefs.best
    )
    return max(float(there[0]) / -float(np.log(SLOWER)), 0.0)


def unrestricted(question: Question, beliefs: Beliefs) -> Frontier:
    """Everything that no other layout beats, at any speed of users."""
    return search(replace(question, interactivity=None), beliefs.best)
