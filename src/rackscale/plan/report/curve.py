"""A ratio over interactivity: one point would flatter somebody."""

from collections.abc import Sequence

from rackscale.plan.report.axis import axis_of
from rackscale.plan.report.chart import Chart, Guide, Line, Mark, card
from rackscale.plan.report.figures import interval, plain, times
from rackscale.plan.report.markup import Markup
from rackscale.plan.types import CurvePoint, Ratio


def curve(points: Sequence[CurvePoint], ratio: Ratio, interactivity: float) -> Markup:
    """Three lines, a mark for each interactivity, and the one that was asked for with its interval."""
    ordered = sorted(points, key=lambda point: point.interactivity)
    lines = {
        "per chip": [(point.interactivity, point.per_chip) for point in ordered],
        "per MW": [(point.interactivity, point.per_mw) for point in ordered],
        "per $": [(point.interactivity, point.per_usd) for point in ordered],
    }
    bands = {"per chip": ratio.per_chip, "per MW": ratio.per_mw, "per $": ratio.per_usd}
    x = axis_of([interactivity, *(point.interactivity for point in ordered)])
    ends = [end for band in bands.values() for end in (band.low, band.high)]
    y = axis_of([1.0, *ends, *(value for line in lines.values() for _, value in line)], log=True)
    kinds = {name: name.replace(" ", "-").replace("$", "usd").lower() for name in lines}
    asked = [
        Mark(
            x=interactivity,
            y=band.value,
            kind=f"ratio {kinds[name]}",
            said=f"{times(band.value)} {name} at {plain(interactivity)} tokens/s per user",
            card=card(
                f"At {plain(interactivity)} tokens/s per user",
                [
                    (other, f"{times(found.value)} ({interval(found, plain)})")
                    for other, found in bands.items()
                ],
            ),
            along=(band.low, band.high),
        )
        for name, band in bands.items()
    ]
    chart = Chart(
        x=x,
        y=y,
        titles=("tokens/s per user", "times the baseline"),
        said="The ratio over interactivity, per chip, per megawatt and per dollar",
        lines=[Line(points=found, kind=kinds[name], label=name) for name, found in lines.items()],
        marks=[*asked, *(_mark(point) for point in ordered)],
        guides=[
            Guide(label=f"asked: {plain(interactivity)}", x=interactivity),
            Guide(label="no gain", y=1.0),
        ],
    )
    return chart.drawn()


def _mark(point: CurvePoint) -> Mark:
    rows = [
        ("per chip", times(point.per_chip)),
        ("per MW", times(point.per_mw)),
        ("per $", times(point.per_usd)),
    ]
    said = ", ".join(f"{value} {name}" for name, value in rows)
    title = f"At {plain(point.interactivity)} tokens/s per user"
    return Mark(
        x=point.interactivity,
        y=point.per_chip,
        kind="along-curve",
        said=f"{title}: {said}",
        card=card(title, rows),
    )
