"""A plan at every value of what is varied, and what the curve says."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import product

from rackscale.core import SpecError
from rackscale.plan.beliefs import Beliefs
from rackscale.plan.describe import described
from rackscale.plan.question import Question
from rackscale.plan.search import best, search
from rackscale.plan.sweep.paths import Axis
from rackscale.plan.sweep.regimes import regimes
from rackscale.plan.sweep.types import Answer, Fit, Row, Sweep, Value
from rackscale.plan.types import Objective, PlannedDeployment

Vary = Sequence[tuple[Axis, Sequence[Value]]]

MOST_PATHS = 2
MOST_ROWS = 256
NEAR = 0.95  # of the most: a smaller value that reaches it will do
UNITS = {
    Objective.CHIP: "tokens/s per chip",
    Objective.MW: "tokens/s per MW",
    Objective.USD: "tokens per dollar",
}
WHICH_RACK, WHICH_MODEL = "which rack suits this model", "which model shape suits this rack"
WHICH_LENGTHS = "which lengths suit both"


def sweep(
    question: Question,
    vary: Vary,
    beliefs: Beliefs | None = None,
    on_row: Callable[[Row], None] | None = None,
) -> Sweep:
    """The best deployment for every value, or every pair of values. The chips that may be used are the same
    for all sizes of a domain: as many as the largest has, unless the question says.

    on_row: told of each row as it is found. Raises SpecError for more than two paths, for too many rows, and
    for values that make no sense together.
    """
    known = Beliefs.of_fit() if beliefs is None else beliefs
    question = _with_chips(question, vary)
    question.check()
    values = _grid(vary)
    asked = [_at(question, vary, row) for row in values]
    rows = []
    for row, one in zip(values, asked, strict=True):
        rows.append(_planned(row, one, known))
        if on_row is not None:
            on_row(rows[-1])
    return Sweep(
        model=question.model.name,
        system=question.system.name,
        isl=question.isl,
        osl=question.osl,
        interactivity=question.interactivity,
        unit=UNITS[question.objective],
        rows=tuple(rows),
        fits=tuple(fit for axis, _ in vary for fit in _fits(axis, rows)),
        answer=_answer(question, vary, rows, known),
    )


def _with_chips(question: Question, vary: Vary) -> Question:
    sizes = [value for axis, values in vary if axis.path == "system.domain" for value in values]
    if not sizes or question.chips is not None:
        return question
    return replace(question, chips=int(max(float(size) for size in sizes)))


def _grid(vary: Vary) -> list[dict[str, Value]]:
    paths = [axis.path for axis, _ in vary]
    if not 1 <= len(paths) <= MOST_PATHS or len(set(paths)) < len(paths):
        raise SpecError(f"{len(paths)} paths are varied", hint="vary one, or two different ones")
    rows = [dict(zip(paths, row, strict=True)) for row in product(*(values for _, values in vary))]
    if len(rows) > MOST_ROWS:
        raise SpecError(f"{len(rows)} plans are asked for", hint=f"give ranges of at most {MOST_ROWS} pairs")
    return rows


def _at(question: Question, vary: Vary, values: Mapping[str, Value]) -> Question:
    """Whole systems and models are set before their parts."""
    for axis, _ in sorted(vary, key=lambda one: not one[0].names):
        question = axis.at(question, values[axis.path])
    question.check()
    return question


def _planned(values: Mapping[str, Value], question: Question, beliefs: Beliefs) -> Row:
    try:
        found = best(question, beliefs.best)
    except SpecError as error:
        return Row(values=values, deployment=None, reached=None, why=error.what)
    if found is None:
        return Row(values=values, deployment=None, reached=None, why=_why_not(question, beliefs))
    (deployment,) = described(question, found, beliefs)
    return Row(values=values, deployment=deployment, reached=_reached(deployment, question.objective))


def _why_not(question: Question, beliefs: Beliefs) -> str:
    frontier = search(replace(question, interactivity=None), beliefs.best)
    if not len(frontier):
        return "users wait too long for a first token"
    return f"users get {float(frontier.tokens_per_s_per_user.max()):.3g} tokens/s at most"


def _reached(deployment: PlannedDeployment, objective: Objective) -> float:
    point = deployment.point
    return {
        Objective.CHIP: point.tokens_per_s_per_chip.value,
        Objective.MW: point.tokens_per_s_per_mw,
        Objective.USD: 1e6 / point.usd_per_mtok,
    }[objective]


def _fits(axis: Axis, rows: Sequence[Row]) -> list[Fit]:
    """Of each curve over the axis: one for every value of the other."""
    if axis.names:
        return []
    curves: dict[tuple[tuple[str, Value], ...], list[tuple[float, float, str]]] = {}
    for row in rows:
        if row.deployment is not None and row.reached is not None:
            others = tuple((path, value) for path, value in row.values.items() if path != axis.path)
            x = float(row.values[axis.path])
            curves.setdefault(others, []).append((x, row.reached, row.deployment.binding))
    found = []
    for others, points in curves.items():
        points.sort()
        for regime in regimes([x for x, _, _ in points], [y for _, y, _ in points]):
            binding = Counter(words for x, _, words in points if regime.first <= x <= regime.last)
            found.append(
                Fit(over=axis.path, at=dict(others), binding=binding.most_common(1)[0][0], regime=regime)
            )
    return found


def _answer(question: Question, vary: Vary, rows: Sequence[Row], beliefs: Beliefs) -> Answer | None:
    reached = [row for row in rows if row.reached is not None]
    if not reached:
        return None
    most = max(reached, key=lambda row: row.reached or 0.0)
    assert most.reached is not None
    near = [row for row in reached if (row.reached or 0.0) >= NEAR * most.reached]
    axis = vary[0][0]
    single = len(vary) == 1 and not axis.names
    as_is = _planned({}, question, beliefs).reached
    return Answer(
        question=_which([axis.path.partition(".")[0] for axis, _ in vary]),
        best=most,
        gain=most.reached / as_is if as_is else None,
        least=min(near, key=lambda row: float(row.values[axis.path])) if single else None,
    )


def _which(parts: Sequence[str]) -> str:
    """parts: first words of paths."""
    if "system" in parts:
        return WHICH_RACK
    return WHICH_MODEL if "model" in parts else WHICH_LENGTHS
