"""What a sweep reached, over one of the paths: a line for each value of the other."""

from collections.abc import Callable, Sequence

from rackscale.plan.report.axis import axis_of, tick_label
from rackscale.plan.report.chart import Chart, Guide, Line, Mark, card
from rackscale.plan.report.figures import exponent, interval, plain, rate
from rackscale.plan.report.markup import Markup
from rackscale.plan.report.words import layout_words, speed
from rackscale.plan.sweep.types import Row, Sweep, Value
from rackscale.plan.types import Band

HUES = 5  # of the style sheet
MOST_BANDS = 2  # more cannot be told apart
SINGLE = "frontier"


def is_number(rows: Sequence[Row], path: str) -> bool:
    """Whether a path's values are numbers; else they are names of the catalog."""
    return not any(isinstance(row.values[path], str) for row in rows)


def number_words(value: Value) -> str:
    """A name as it is, a number with a prefix where it is large."""
    return value if isinstance(value, str) else tick_label(value)


def sweep_chart(sweep: Sweep, across: str, band_of: Callable[[Row], Band | None]) -> Markup:
    """In logarithms, where a power is a straight line.

    across: the path of numbers along the axis. band_of: a row's value with its interval.
    """
    found = [(row, band) for row in sweep.rows if (band := band_of(row)) is not None]
    curves: dict[str, list[tuple[float, Row, Band]]] = {}
    for row, band in found:
        others = [number_words(value) for path, value in row.values.items() if path != across]
        curves.setdefault(", ".join(others), []).append((float(row.values[across]), row, band))
    x = axis_of((at for curve in curves.values() for at, _, _ in curve), log=True)
    y = axis_of((end for _, band in found for end in (band.low, band.high)), log=True)
    lines, marks = [], []
    for number, (name, curve) in enumerate(curves.items()):
        curve.sort(key=lambda point: point[0])
        kind = f"hue-{number % HUES}" if name else SINGLE
        lines.append(
            Line(
                points=[(at, band.value) for at, _, band in curve],
                band=[(at, band.low, band.high) for at, _, band in curve if len(curves) <= MOST_BANDS],
                kind=kind,
                label=name or None,
            )
        )
        marks += [_mark(at, row, band, kind, sweep.unit) for at, row, band in curve]
    single = [fit.regime for fit in sweep.fits if fit.over == across and not fit.at]
    bindings = [fit.binding for fit in sweep.fits if fit.over == across and not fit.at]
    return Chart(
        x=x,
        y=y,
        titles=(across, sweep.unit),
        said=f"{sweep.unit} over {across}: {len(found)} deployments",
        lines=lines,
        marks=marks,
        guides=[Guide(label="knee", x=regime.last) for regime in single[:-1]],
        ribbon=[
            (regime.first, regime.last, f"exponent {exponent(regime.exponent)}: {binding}")
            for regime, binding in zip(single, bindings, strict=True)
        ],
    ).drawn()


def _mark(at: float, row: Row, band: Band, kind: str, unit: str) -> Mark:
    assert row.deployment is not None
    title = ", ".join(f"{path} {number_words(value)}" for path, value in row.values.items())
    rows = [
        (unit, f"{rate(band.value)} ({interval(band, rate)})"),
        ("per user", f"{plain(speed(row.deployment))} tokens/s"),
        ("layout", layout_words(row.deployment)),
        ("binding", row.deployment.binding),
    ]
    said = f"{title}: {rate(band.value)} {unit}, {layout_words(row.deployment)}, {row.deployment.binding}"
    return Mark(x=at, y=band.value, kind=f"swept {kind}", said=said, card=card(title, rows))
