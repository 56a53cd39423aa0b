"""Time by operator in a step, coloured by what sets it."""

from collections.abc import Sequence

from rackscale.plan.report.figures import percent, seconds
from rackscale.plan.report.markup import Markup, element, joined, style
from rackscale.plan.types import OperatorTime

BOUNDS = ("HBM", "tensor cores", "link", "latency", "host", "prompts")


def bound_kind(bound: str) -> str:
    """A class of the style sheet; bounds that have no colour of their own share one."""
    return bound.lower().replace(" ", "-") if bound in BOUNDS else "other"


def operators(shown: Sequence[OperatorTime], longest_s: float | None = None) -> Markup:
    """The longest first, and above them how the step divides by bounds. What takes no time is only named.

    longest_s: a whole bar, where several steps share a scale.
    """
    total = sum(operator.seconds for operator in shown)
    busy = sorted((operator for operator in shown if operator.seconds > 0), key=lambda one: -one.seconds)
    if not busy:
        return element("p", "No operator takes time here.", class_="reading")
    idle = [operator.name for operator in shown if operator.seconds <= 0]
    longest = longest_s or busy[0].seconds
    rows = [_row(operator, total, longest) for operator in busy]
    rest = f"No time: {', '.join(idle)}." if idle else None
    return joined(
        _bounds(busy, total),
        element("ul", *rows, class_="bars"),
        None if rest is None else element("p", rest, class_="small"),
    )


def _bounds(busy: Sequence[OperatorTime], total: float) -> Markup:
    shares: dict[str, float] = {}
    for operator in busy:
        shares[operator.bound] = shares.get(operator.bound, 0.0) + operator.seconds / total
    ordered = sorted(shares.items(), key=lambda share: -share[1])
    parts = [
        element("i", class_=bound_kind(bound), style=style(width=100 * share)) for bound, share in ordered
    ]
    keys = [
        element("li", element("i", class_=f"swatch {bound_kind(bound)}"), f"{bound} {percent(share)}")
        for bound, share in ordered
    ]
    return joined(
        element("div", *parts, class_="thin", aria_hidden="true"), element("ul", *keys, class_="keys")
    )


def _row(operator: OperatorTime, total: float, longest: float) -> Markup:
    share = operator.seconds / total
    kind = bound_kind(operator.bound)
    return element(
        "li",
        element("span", operator.name, class_="name"),
        element("b", seconds(operator.seconds)),
        element("span", percent(share), class_="share"),
        element(
            "span",
            element("i", class_=kind, style=style(width=100 * operator.seconds / longest)),
            class_="track",
        ),
        element("span", operator.bound, class_=f"bound {kind}"),
        title=f"{operator.formula} ({operator.source})",
    )
