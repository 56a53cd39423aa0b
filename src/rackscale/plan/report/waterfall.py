"""A ratio as a product of factors, each a bar from the product before it to the one after."""

from collections.abc import Sequence

from rackscale.plan.report.axis import Axis, axis_of, tick_label
from rackscale.plan.report.figures import interval, plain, spread, times
from rackscale.plan.report.markup import Markup, element, joined, style
from rackscale.plan.types import Band, WaterfallStep


def waterfall(steps: Sequence[WaterfallStep], first: str, last: str, total: Band) -> Markup:
    """A row for the first system, for each step, and for the last system with the whole ratio. The axis is
    logarithmic: equal factors are equally long."""
    befores = [1.0, *(step.cumulative for step in steps)]
    ends = [
        before * end for before, step in zip(befores, steps, strict=False) for end in (step.low, step.high)
    ]
    axis = axis_of([*befores, *ends, total.low, total.high], log=True, around=0.04)
    rows = [_row(axis, "start", first, 1.0, 1.0, None, times(1.0), "the baseline")]
    for before, step in zip(befores, steps, strict=False):
        kind = "gain" if step.factor >= 1 else "loss"
        band = Band(value=step.cumulative, low=before * step.low, high=before * step.high)
        note = "as given" if step.low == step.high else spread(plain(step.low), plain(step.high))
        so_far = f"→ {times(step.cumulative)}"
        rows.append(
            _row(axis, kind, step.step, before, step.cumulative, band, times(step.factor), note, so_far)
        )
    note = interval(total, plain)
    rows.append(_row(axis, "total", last, 1.0, total.value, total, times(total.value), note))
    ticks = [
        element("span", element("i", tick_label(value)), class_="tick-x", style=style(left=axis.at(value)))
        for value in axis.ticks()
    ]
    scale = element("li", element("span"), element("span", *ticks, class_="track scale"), aria_hidden="true")
    return element("ol", *rows, scale, class_="waterfall")


def _row(
    axis: Axis,
    kind: str,
    name: str,
    before: float,
    after: float,
    band: Band | None,
    factor: str,
    note: str,
    so_far: str | None = None,
) -> Markup:
    left, right = sorted((axis.at(before), axis.at(after)))
    bar = element("i", class_="bar", style=style(left=left, width=right - left))
    whisker = None
    if band is not None and band.low < band.high:
        low, high = axis.at(band.low), axis.at(band.high)
        whisker = element("i", class_="whisker-x", style=style(left=low, width=high - low))
    one = element("i", class_="one", style=style(left=axis.at(1.0)))
    link = None if kind == "total" else element("i", class_="link", style=style(left=axis.at(after)))
    return element(
        "li",
        element("span", name, class_="name"),
        element("span", one, bar, link, whisker, class_="track", aria_hidden="true"),
        element(
            "span",
            joined(element("b", factor), " ", element("small", note)),
            None if so_far is None else element("small", so_far, class_="so-far"),
            class_="factor",
        ),
        class_=kind,
    )
