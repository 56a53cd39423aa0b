"""Two axes with lines, bands and marks. Places are in percent, so that a chart fits any width as it is."""

from collections.abc import Sequence
from dataclasses import dataclass

from rackscale.plan.report.axis import Axis, tick_label
from rackscale.plan.report.markup import Markup, element, joined, style

LABEL_HEIGHT = 5.0  # percent of the plot
Point = tuple[float, float]


@dataclass(frozen=True, kw_only=True, slots=True)
class Line:
    """kind: a class of the style sheet. band: x, low, high. label: written at its last point."""

    points: Sequence[Point]
    kind: str
    band: Sequence[tuple[float, float, float]] = ()
    label: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Mark:
    """A point that tells of itself. across, along: intervals of x and y, drawn as whiskers."""

    x: float
    y: float
    kind: str
    said: str
    card: Markup
    across: Point | None = None
    along: Point | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Guide:
    """A straight line at x, or at y; beyond: what lies left of x does not count."""

    label: str
    x: float | None = None
    y: float | None = None
    beyond: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Chart:
    """titles: of x and y, with units. ribbon: what holds from one x to another, in words, below the axis."""

    x: Axis
    y: Axis
    titles: tuple[str, str]
    said: str
    lines: Sequence[Line] = ()
    marks: Sequence[Mark] = ()
    guides: Sequence[Guide] = ()
    ribbon: Sequence[tuple[float, float, str]] = ()

    def drawn(self) -> Markup:
        """The figure."""
        plot = element(
            "div",
            *self._grid(),
            *(self._guide(guide) for guide in self.guides),
            self._paths(),
            *self._labels(),
            *(self._mark(mark, number) for number, mark in enumerate(self.marks)),
            class_="plot",
        )
        ribbon = element("div", *(self._stretch(*part) for part in self.ribbon), class_="ribbon")
        return element(
            "figure",
            element("p", f"↑ {self.titles[1]}{', log scale' if self.y.log else ''}", class_="y-title"),
            plot,
            element("p", f"{self.titles[0]}{', log scale' if self.x.log else ''} →", class_="x-title"),
            ribbon if self.ribbon else None,
            class_="chart labelled" if any(line.label for line in self.lines) else "chart",
            role="group",
            aria_label=self.said,
        )

    def _grid(self) -> list[Markup]:
        across = [
            element(
                "span", element("i", tick_label(value)), class_="tick-x", style=style(left=self.x.at(value))
            )
            for value in self.x.ticks()
        ]
        along = [
            element(
                "span", element("i", tick_label(value)), class_="tick-y", style=style(bottom=self.y.at(value))
            )
            for value in self.y.ticks()
        ]
        return across + along

    def _guide(self, guide: Guide) -> Markup:
        label = element("b", guide.label)
        if guide.x is not None:
            at = self.x.at(guide.x)
            side = "guide-x" + (" beyond" if guide.beyond else "") + (" west" if at > 60 else "")
            return element("span", label, class_=side, style=style(left=at, var_at=at))
        return element("span", label, class_="guide-y", style=style(bottom=self.y.at(guide.y or 0.0)))

    def _paths(self) -> Markup:
        paths = [_path(self._outline(line), f"band {line.kind}") for line in self.lines if line.band]
        paths += [_path(f"M{self._run(line.points)}", f"line {line.kind}") for line in self.lines]
        return element("svg", *paths, viewBox="0 0 100 100", preserveAspectRatio="none", aria_hidden="true")

    def _outline(self, line: Line) -> str:
        there = [(x, high) for x, _, high in line.band]
        back = [(x, low) for x, low, _ in reversed(line.band)]
        return f"M{self._run([*there, *back])}Z"

    def _run(self, points: Sequence[Point]) -> str:
        return "L".join(f"{self.x.at(x):.2f},{100 - self.y.at(y):.2f}" for x, y in points)

    def _labels(self) -> list[Markup]:
        """Right of the plot, at the lines' ends, pushed up where they would meet."""
        found, free = [], 0.0
        named = [line for line in self.lines if line.label and line.points]
        for line in sorted(named, key=lambda line: line.points[-1][1]):
            bottom = max(self.y.at(line.points[-1][1]), free)
            free = bottom + LABEL_HEIGHT
            kind = f"line-label {line.kind}"
            found.append(element("span", line.label, class_=kind, style=style(bottom=bottom)))
        return found

    def _stretch(self, first: float, last: float, what: str) -> Markup:
        left, right = self.x.at(first), self.x.at(last)
        return element("span", what, style=style(left=left, width=right - left), title=what)

    def _mark(self, mark: Mark, number: int) -> Markup:
        left, bottom = self.x.at(mark.x), self.y.at(mark.y)
        sides = f"{' west' if left > 50 else ''}{' south' if bottom > 50 else ''}"
        there = element(
            "div",
            element("i"),
            element("div", mark.card, class_="card"),
            class_=f"mark {mark.kind}{sides}",
            style=style(left=left, bottom=bottom),
            tabindex=0 if number == 0 else -1,
            role="img",
            aria_label=mark.said,
        )
        return joined(self._whiskers(mark), there)

    def _whiskers(self, mark: Mark) -> Markup:
        found = []
        if mark.across:
            low, high = (self.x.at(value) for value in mark.across)
            place = style(left=low, width=high - low, bottom=self.y.at(mark.y))
            found.append(element("i", class_=f"whisker-x {mark.kind}", style=place))
        if mark.along:
            low, high = (self.y.at(value) for value in mark.along)
            place = style(bottom=low, height=high - low, left=self.x.at(mark.x))
            found.append(element("i", class_=f"whisker-y {mark.kind}", style=place))
        return joined(*found)


def _path(run: str, kind: str) -> Markup:
    return element("path", d=run, class_=kind)


def card(title: str, rows: Sequence[tuple[str, str]], note: str | None = None) -> Markup:
    """What a mark tells: a title, values by name, and a remark."""
    values = [joined(element("dt", name), element("dd", value)) for name, value in rows]
    return joined(element("b", title), element("dl", *values), None if note is None else element("p", note))
