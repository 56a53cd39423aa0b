"""One system over another at the same speed for users: how much more, against what, and why.

A ratio says little without its baseline. "box": the first system as one domain that does prompts and answers
on the same ranks. "disaggregated": as many chips of it as the last system has, prompts and answers in pools
of their own, experts spread over as many boxes as is best. The last system may do whatever is best for it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from rackscale.core import SpecError
from rackscale.plan.beliefs import Beliefs
from rackscale.plan.compare.level import Level, need_level, noise, unrestricted
from rackscale.plan.compare.waterfall import Corners, per, waterfall
from rackscale.plan.describe import described
from rackscale.plan.interval import NORMAL_95
from rackscale.plan.question import Question
from rackscale.plan.search import Frontier
from rackscale.plan.types import Band, Comparison, CurvePoint, Objective, Ratio
from rackscale.specs.catalog import SystemSpec, closest

Array = NDArray[np.float64]

BASELINES = ("box", "disaggregated")
CURVE_POINTS = 12
CURVE_FROM = 10.0  # tokens per second and user


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Side:
    """level: its question has the weights, the role and the chips that were found to be best."""

    frontier: Frontier
    level: Level


def compare(
    question: Question,
    systems: Sequence[SystemSpec],
    *,
    baseline: str = "box",
    beliefs: Beliefs | None = None,
) -> Comparison:
    """The last of the systems over the first, at the question's interactivity; those between are planned as
    the last is. The waterfall explains the ratio by the question's objective.

    Raises SpecError for fewer than two systems, an unknown baseline, no or too high an interactivity, and
    where the model does not fit.
    """
    return compare_with(question, systems, (baseline,), beliefs)[baseline]


def compare_with(
    question: Question,
    systems: Sequence[SystemSpec],
    baselines: Sequence[str],
    beliefs: Beliefs | None = None,
) -> Mapping[str, Comparison]:
    """A comparison for each baseline, in their order."""
    _check(question, systems, baselines)
    known = Beliefs.of_fit() if beliefs is None else beliefs
    corners = Corners(known)
    others = {system.name: _side(replace(question, system=system), known) for system in systems[1:]}
    last = others[systems[-1].name]
    found = {}
    for baseline in baselines:
        first = _first(replace(question, system=systems[0]), baseline, last, known)
        levels = {name: side.level for name, side in {systems[0].name: first, **others}.items()}
        found[baseline] = Comparison(
            model=question.model.name,
            isl=question.isl,
            osl=question.osl,
            interactivity=_asked(question),
            baseline=_words(first, baseline),
            power=question.power,
            price=question.price,
            points={name: described(level.question, level.found, known)[0] for name, level in levels.items()},
            ratio=_ratio(first.level, last.level, known),
            waterfall=waterfall(first.level, last.level, corners),
            curve=_curve(first, last),
        )
    return found


def _check(question: Question, systems: Sequence[SystemSpec], baselines: Sequence[str]) -> None:
    if len(systems) < 2:
        raise SpecError("one system cannot be compared", hint="give two, for example hgx-h200,gb200-nvl72")
    names = [system.name for system in systems]
    if len(set(names)) < len(names):
        raise SpecError(f"{', '.join(names)} has a system twice", hint="give different ones")
    for baseline in baselines:
        if baseline not in BASELINES:
            raise SpecError(f"no baseline is called {baseline}", hint=closest(baseline, BASELINES, "give"))
    _asked(question)
    for system in systems:
        replace(question, system=system).check()


def _asked(question: Question) -> float:
    if question.interactivity is None:
        raise SpecError("systems compare at the same speed for users", hint="give an interactivity")
    return question.interactivity


def _side(question: Question, beliefs: Beliefs) -> _Side:
    frontier = unrestricted(question, beliefs)
    level = need_level(replace(question, chips=frontier.chips), beliefs, frontier)
    one = level.found.deployments
    settled = replace(
        level.question,
        weights=one.decode.formats[int(one.decode.weights[0])],
        role="disaggregated" if one.disaggregated[0] else "mixed",
    )
    return _Side(frontier=frontier, level=replace(level, question=settled))


def _first(question: Question, baseline: str, last: _Side, beliefs: Beliefs) -> _Side:
    """The baseline. A box's experts stay in it, also in combinations that have more boxes."""
    if baseline == "box":
        side = _side(replace(question, role="mixed", chips=None), beliefs)
        if last.frontier.chips <= side.frontier.chips:
            return side
        kept = replace(side.level.question, max_ep=side.frontier.chips)
        return replace(side, level=replace(side.level, question=kept))
    domain = question.system.domain_chips
    chips = -(-last.frontier.chips // domain) * domain
    return _side(replace(question, role="disaggregated", chips=chips), beliefs)


def _words(side: _Side, baseline: str) -> str:
    question, chips = side.level.question, side.frontier.chips
    what = f"{question.system.title}, {question.weights.upper()} weights"
    if baseline == "box":
        boxes = chips // question.system.domain_chips
        where = f"a box of {chips} chips" if boxes == 1 else f"{boxes} boxes of {chips // boxes} chips"
        return f"{what}, {where} that do prompts and answers together"
    return f"{what}, prompts and answers apart on up to {chips} chips, experts spread over boxes"


def _ratio(first: Level, last: Level, beliefs: Beliefs) -> Ratio:
    """Draws are paired: what parameters leave open of both sides cancels."""
    logs = last.logs - first.logs
    doubt = NORMAL_95 * float(logs[1:].std())
    of_first, of_last = noise(first, beliefs), noise(last, beliefs)
    down = float(np.exp(-np.sqrt(of_last.low**2 + of_first.high**2 + doubt**2)))
    up = float(np.exp(np.sqrt(of_last.high**2 + of_first.low**2 + doubt**2)))
    bands = {}
    for objective in Objective:
        ratio = float(np.exp(logs[0])) * per(first, objective) / per(last, objective)
        bands[objective] = Band(value=ratio, low=ratio * down, high=ratio * up)
    return Ratio(per_chip=bands[Objective.CHIP], per_mw=bands[Objective.MW], per_usd=bands[Objective.USD])


def _curve(first: _Side, last: _Side) -> tuple[CurvePoint, ...]:
    """From slow users to the fastest that both sides can serve; what is asked for is one of them. Between
    deployments of a frontier curves are straight in logarithms."""
    asked = _asked(last.level.question)
    fastest = min(float(side.frontier.tokens_per_s_per_user.max()) for side in (first, last))
    grid = np.geomspace(min(CURVE_FROM, asked), fastest, CURVE_POINTS)
    ratios = np.exp(_logs(last.frontier, grid) - _logs(first.frontier, grid)).tolist()
    reached = last.level.tokens_per_s_per_chip / first.level.tokens_per_s_per_chip
    points = []
    for interactivity, ratio in sorted([*zip(grid.tolist(), ratios, strict=True), (asked, reached)]):
        chip, mw, usd = (
            ratio * per(first.level, objective) / per(last.level, objective)
            for objective in (Objective.CHIP, Objective.MW, Objective.USD)
        )
        points.append(CurvePoint(interactivity=interactivity, per_chip=chip, per_mw=mw, per_usd=usd))
    return tuple(points)


def _logs(frontier: Frontier, interactivity: Array) -> Array:
    """Of tokens per second and chip, at these speeds of users."""
    slowness = np.log(frontier.tpot_s)  # rising: the fastest for users are first
    return np.interp(-np.log(interactivity), slowness, np.log(frontier.tokens_per_s_per_chip))
