"""Line charts as SVG files that follow a reader's light or dark theme. No dependencies."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from html import escape

WIDTH, HEIGHT = 720, 400
LEFT, RIGHT, TOP, BOTTOM = 66, 150, 46, 52
COLOURS = ("a", "b", "c", "d")
MOST_TICKS = 7
STYLE = """
text{font:13px system-ui,sans-serif;fill:#24292f}.title{font-weight:600;font-size:15px}
.grid{stroke:#d0d7de;stroke-width:1}.line{fill:none;stroke-width:2.25;stroke-linejoin:round}
.knee{fill:#fff;stroke-width:2.25}
.a{stroke:#0969da}.b{stroke:#cf222e}.c{stroke:#1a7f37}.d{stroke:#8250df}
text.a,text.b,text.c,text.d{stroke:none}
text.a{fill:#0969da}text.b{fill:#cf222e}text.c{fill:#1a7f37}text.d{fill:#8250df}
circle.dot.a{fill:#0969da}circle.dot.b{fill:#cf222e}circle.dot.c{fill:#1a7f37}circle.dot.d{fill:#8250df}
@media(prefers-color-scheme:dark){text{fill:#e6edf3}.grid{stroke:#30363d}.knee{fill:#0d1117}
.a{stroke:#58a6ff}.b{stroke:#ff7b72}.c{stroke:#3fb950}.d{stroke:#bc8cff}
text.a{fill:#58a6ff}text.b{fill:#ff7b72}text.c{fill:#3fb950}text.d{fill:#bc8cff}
circle.dot.a{fill:#58a6ff}circle.dot.b{fill:#ff7b72}circle.dot.c{fill:#3fb950}circle.dot.d{fill:#bc8cff}}
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Curve:
    """points: x rising. knees: x of points that are drawn as rings."""

    label: str
    points: Sequence[tuple[float, float]]
    knees: Sequence[float] = field(default=())


def line_chart(title: str, x_title: str, y_title: str, curves: Sequence[Curve]) -> str:
    """One SVG document, both axes logarithmic. Every value is above 0."""
    xs = [x for curve in curves for x, _ in curve.points]
    ys = [y for curve in curves for _, y in curve.points]
    across = _scale(min(xs), max(xs), LEFT, WIDTH - RIGHT, 0.0)
    along = _scale(min(ys), max(ys), HEIGHT - BOTTOM, TOP, 0.06)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}">',
        f"<title>{escape(title)}</title><style>{STYLE}</style>",
        f'<text class="title" x="{LEFT}" y="20">{escape(title)}</text>',
        f'<text x="{LEFT}" y="38">{escape(y_title)}</text>',
        f'<text x="{WIDTH - RIGHT}" y="{HEIGHT - 10}" text-anchor="end">{escape(x_title)}</text>',
    ]
    for value in _ticks(min(ys), max(ys)):
        y = along(value)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{_short(value)}</text>')
    for value in _own_ticks(xs):
        x = across(value)
        parts.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>')
        parts.append(
            f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{_short(value)}</text>'
        )
    ends = _apart([along(curve.points[-1][1]) for curve in curves])
    for curve, colour, end in zip(curves, COLOURS, ends, strict=False):
        run = " ".join(f"{across(x):.1f},{along(y):.1f}" for x, y in curve.points)
        parts.append(f'<polyline class="line {colour}" points="{run}"/>')
        for x, y in curve.points:
            kind, radius = ("knee", 5.5) if x in curve.knees else ("dot", 2.5)
            parts.append(
                f'<circle class="{kind} {colour}" cx="{across(x):.1f}" cy="{along(y):.1f}" r="{radius}"/>'
            )
        place = across(curve.points[-1][0]) + 10
        parts.append(f'<text class="{colour}" x="{place:.1f}" y="{end + 4:.1f}">{escape(curve.label)}</text>')
    return "\n".join([*parts, "</svg>\n"])


def _scale(low: float, high: float, start: float, end: float, room: float) -> Callable[[float], float]:
    """From a value to a place, on a logarithmic axis with some room at both ends."""
    first, last = math.log(low), math.log(high)
    span = (last - first) or 1.0
    first, span = first - room * span, span * (1 + 2 * room)
    return lambda value: start + (end - start) * (math.log(value) - first) / span


def _ticks(low: float, high: float) -> list[float]:
    """Round values."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    found: list[float] = []
    for digits in ((1, 1.5, 2, 3, 4, 5, 6, 8), (1, 2, 3, 5, 7), (1, 2, 5), (1, 3), (1,)):
        found = [digit * 10.0**power for power in powers for digit in digits]
        found = [value for value in found if low <= value <= high]
        if len(found) <= MOST_TICKS:
            break
    return found


def _own_ticks(xs: Iterable[float]) -> list[float]:
    """The values themselves, as many as there is room for."""
    values = sorted(set(xs))
    step = -(-len(values) // MOST_TICKS)
    return values[::step]


def _apart(places: Sequence[float], least: float = 16.0) -> list[float]:
    """Places of labels, moved so that none lies on another."""
    order = sorted(range(len(places)), key=lambda number: places[number])
    found, last = list(places), -math.inf
    for number in order:
        last = found[number] = max(places[number], last + least)
    return found


def _short(value: float) -> str:
    for size, prefix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g}{prefix}"
    return f"{value:.3g}"
