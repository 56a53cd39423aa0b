"""The frontier: what each speed of users costs in throughput."""

import math
from collections.abc import Sequence
from itertools import groupby, pairwise

from rackscale.plan.report.axis import axis_of
from rackscale.plan.report.chart import Chart, Guide, Line, Mark, card
from rackscale.plan.report.figures import interval, plain, rate, seconds
from rackscale.plan.report.markup import Markup, element, joined
from rackscale.plan.report.objective import Goal
from rackscale.plan.report.words import batch_words, layout_words, size_words, speed, split_words
from rackscale.plan.types import Alternative, PlannedDeployment


def frontier(
    best: PlannedDeployment,
    pareto: Sequence[PlannedDeployment],
    others: Sequence[Alternative],
    goal: Goal,
    interactivity: float | None,
) -> Markup:
    """The chart: frontier with its band, the plan, what was not chosen, and the speed that was asked for."""
    ordered = sorted(pareto or [best], key=speed)
    points = [(speed(one), goal.of(one.point)) for one in ordered]
    everyone = [*ordered, best, *(other.deployment for other in others)]
    asked = [] if interactivity is None else [interactivity]
    x = axis_of([*(speed(one) for one in everyone), *asked])
    y = axis_of([end for one in everyone for end in _ends(goal, one)])
    line = Line(
        points=[(at, band.value) for at, band in points],
        band=[(at, band.low, band.high) for at, band in points],
        kind="frontier",
    )
    marks = [_mark(best, goal, "chosen", "The plan", None)]
    marks += [_mark(one, goal, "pareto", "On the frontier", None) for one in ordered if one != best]
    marks += [_mark(one.deployment, goal, "other", "Not chosen", one.why_not) for one in others]
    guides = [] if interactivity is None else [
        Guide(label=f"asked: {plain(interactivity)}", x=interactivity, beyond=True)
    ]  # fmt: skip
    said = (
        f"Frontier of {len(points)} deployments: {goal.unit} against tokens per second and user. "
        f"The plan: {rate(goal.of(best.point).value)} at {plain(speed(best))}."
    )
    titles = ("tokens/s per user", goal.unit)
    chart = Chart(
        x=x,
        y=y,
        titles=titles,
        said=said,
        lines=[line],
        marks=marks,
        guides=guides,
        ribbon=_bindings(ordered),
    )
    kinds = ("the plan", "chosen"), ("frontier", "pareto"), ("not chosen", "other")
    keys = [element("li", element("i", class_=f"key {kind}"), name) for name, kind in kinds]
    return joined(chart.drawn(), element("ul", *keys, class_="keys marks"))


def _bindings(ordered: Sequence[PlannedDeployment]) -> list[tuple[float, float, str]]:
    """What binds over which speeds: it changes halfway between two points. Nothing where it is the same
    everywhere."""
    runs = [list(run) for _, run in groupby(ordered, key=lambda one: one.binding)]
    edges = [math.sqrt(speed(left[-1]) * speed(right[0])) for left, right in pairwise(runs)]
    if len(runs) == 1:
        return []
    starts, ends = [speed(ordered[0]), *edges], [*edges, speed(ordered[-1])]
    return [(start, end, run[0].binding) for start, end, run in zip(starts, ends, runs, strict=True)]


def _ends(goal: Goal, one: PlannedDeployment) -> tuple[float, float]:
    band = goal.of(one.point)
    return band.low, band.high


def _mark(one: PlannedDeployment, goal: Goal, kind: str, title: str, why_not: str | None) -> Mark:
    band, tpot = goal.of(one.point), one.point.tpot_s
    rows = [
        (goal.unit, f"{rate(band.value)} ({interval(band, rate)})"),
        ("per user", f"{plain(speed(one))} tokens/s"),
        ("TPOT", f"{seconds(tpot.value)} ({interval(tpot, seconds)})"),
        ("TTFT", f"{seconds(one.point.ttft_s.value)} (p99 {seconds(one.point.ttft_p99_s)})"),
    ]
    for pool in one.pools:
        batch = batch_words(pool)
        rows.append((pool.role, ", ".join(filter(None, (size_words(pool), split_words(pool), batch)))))
    rows += [("experts in", one.weights.upper()), ("binding", one.binding)]
    whiskers = kind == "chosen"
    return Mark(
        x=speed(one),
        y=band.value,
        kind=kind,
        said=f"{title}: {rate(band.value)} {goal.unit} at {plain(speed(one))} tokens/s per user, "
        f"{layout_words(one)}, binding: {one.binding}",
        card=card(title, rows, why_not),
        across=(1 / tpot.high, 1 / tpot.low) if whiskers else None,
        along=(band.low, band.high) if whiskers else None,
    )
