"""Figures at the top of a page: each with its interval, drawn from 0 on."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rackscale.plan.report.figures import interval
from rackscale.plan.report.markup import Markup, element, style
from rackscale.plan.types import Band

ROOM = 1.08  # of the drawn range over its highest value


@dataclass(frozen=True, kw_only=True, slots=True)
class Tile:
    """form: writes the value and its interval. limit: what the question allows, a tick. notes: last lines."""

    name: str
    value: float
    form: Callable[[float], str]
    unit: str = ""
    band: Band | None = None
    limit: float | None = None
    notes: Sequence[str] = ()
    main: bool = False

    def drawn(self) -> Markup:
        """A term and what belongs to it."""
        return element(
            "div",
            element("dt", self.name),
            element(
                "dd",
                element("b", self.form(self.value)),
                " " if self.unit else None,
                element("span", self.unit) if self.unit else None,
            ),
            self._range(),
            None if self.band is None else element("dd", interval(self.band, self.form), class_="interval"),
            *(element("dd", note, class_="note") for note in self.notes),
            class_="tile main" if self.main else "tile",
        )

    def _range(self) -> Markup | None:
        if self.band is None:
            return None
        full = 100 / (ROOM * max(self.band.high, self.value, self.limit or 0.0))
        low, high = full * self.band.low, full * self.band.high
        return element(
            "dd",
            element("i", class_="span", style=style(left=low, width=high - low)),
            element("i", class_="dot", style=style(left=full * self.value)),
            None if self.limit is None else element("i", class_="limit", style=style(left=full * self.limit)),
            class_="range",
            aria_hidden="true",
        )


def tiles(*shown: Tile) -> Markup:
    """All of them in a row that wraps."""
    return element("dl", *(tile.drawn() for tile in shown), class_="tiles")
