"""What was not chosen, and why."""

from collections.abc import Sequence

from rackscale.plan.report.figures import change, interval, plain, rate, seconds
from rackscale.plan.report.markup import Markup, element, joined
from rackscale.plan.report.objective import Goal
from rackscale.plan.report.words import layout_words, speed
from rackscale.plan.types import Alternative, PlannedDeployment


def alternatives(best: PlannedDeployment, others: Sequence[Alternative], goal: Goal) -> Markup:
    """A table, the plan on top."""
    names = ("Layout", goal.unit, "against the plan", "tokens/s per user", "TTFT", "Why not")
    head = element("tr", *(element("th", name, scope="col") for name in names))
    value = goal.of(best.point).value
    rows = [_row(best, goal, value, None)]
    rows += [_row(other.deployment, goal, value, other.why_not) for other in others]
    return element("table", element("thead", head), element("tbody", *rows), class_="alternatives folding")


def _row(deployment: PlannedDeployment, goal: Goal, value: float, why_not: str | None) -> Markup:
    band = goal.of(deployment.point)
    cells = (
        ("", joined(element("b", layout_words(deployment)))),
        (goal.unit, joined(element("b", rate(band.value)), element("small", interval(band, rate)))),
        ("against the plan", joined("the plan" if why_not is None else change(band.value / value))),
        ("tokens/s per user", joined(plain(speed(deployment)))),
        ("TTFT", joined(seconds(deployment.point.ttft_s.value))),
        ("why not" if why_not else "binding", joined(why_not or f"Chosen. Binding: {deployment.binding}.")),
    )
    kinds = ("layout", "number", "number", "number", "number", "why")
    return element(
        "tr",
        *(
            element("td", content, class_=kind, data_label=name or None)
            for (name, content), kind in zip(cells, kinds, strict=True)
        ),
        class_="chosen" if why_not is None else None,
    )
