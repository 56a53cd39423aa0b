"""All that can be argued with: each operator with its formula and source, each point of the frontier."""

from collections.abc import Mapping, Sequence

from rackscale.plan.report.figures import interval, plain, rate, scaled, seconds
from rackscale.plan.report.markup import Markup, element, joined
from rackscale.plan.report.objective import Goal
from rackscale.plan.report.words import batch_words, layout_words, speed
from rackscale.plan.types import OperatorTime, PlannedDeployment


def folded(title: str, body: Markup) -> Markup:
    """Opened by a click, and by the printer."""
    return element("details", element("summary", title), body)


def operator_table(steps: Mapping[str, Sequence[OperatorTime]]) -> Markup:
    """steps: operators by the step's name. Rates are of the operator's own time."""
    names = (
        "Operator", "Time", "Arithmetic", "Memory read", "Sent", "Reached", "Bound by", "Formula", "Source",
    )  # fmt: skip
    bodies = [
        element(
            "tbody",
            element("tr", element("th", name, colspan=len(names), scope="rowgroup")),
            *(_operator(operator) for operator in operators),
        )
        for name, operators in steps.items()
    ]
    return _table(names, *bodies)


def _operator(one: OperatorTime) -> Markup:
    reached = []
    if one.seconds > 0:
        amounts = ((one.flops, "FLOP/s"), (one.bytes_hbm, "B/s HBM"), (one.bytes_link, "B/s link"))
        reached = [scaled(amount / one.seconds, unit) for amount, unit in amounts if amount]
    numbers = (
        seconds(one.seconds),
        scaled(one.flops, "FLOP"),
        scaled(one.bytes_hbm, "B"),
        scaled(one.bytes_link, "B"),
    )
    return element(
        "tr",
        element("td", one.name),
        *(element("td", number, class_="number") for number in numbers),
        element("td", *(element("div", rate_) for rate_ in reached), class_="number"),
        element("td", one.bound),
        element("td", element("code", one.formula)),
        element("td", one.source),
    )


def frontier_table(frontier: Sequence[PlannedDeployment], goal: Goal) -> Markup:
    """Every point that the chart shows."""
    names = (
        "Tokens/s per user", goal.unit, "90 % interval", "TPOT", "TTFT", "TTFT p99", "$ per M tokens",
        "Chips", "Requests", "Layout", "Batch", "Binding",
    )  # fmt: skip
    return _table(names, element("tbody", *(_point(deployment, goal) for deployment in frontier)))


def _point(deployment: PlannedDeployment, goal: Goal) -> Markup:
    point, band = deployment.point, goal.of(deployment.point)
    numbers = (
        plain(speed(deployment)),
        rate(band.value),
        interval(band, rate),
        seconds(point.tpot_s.value),
        seconds(point.ttft_s.value),
        seconds(point.ttft_p99_s),
        plain(point.usd_per_mtok),
        plain(point.chips),
        plain(point.concurrency),
    )
    batches = "; ".join(filter(None, (batch_words(pool) for pool in deployment.pools)))
    return element(
        "tr",
        *(element("td", number, class_="number") for number in numbers),
        *(
            element("td", text, class_="text")
            for text in (layout_words(deployment), batches, deployment.binding)
        ),
    )


def _table(names: Sequence[str], *bodies: Markup) -> Markup:
    head = element("thead", element("tr", *(element("th", name, scope="col") for name in names)))
    return element("div", joined(element("table", head, *bodies, class_="dense")), class_="scroll")
