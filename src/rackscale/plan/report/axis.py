"""A scale from values to percent of a chart's width or height."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

LOG_FROM = 6.0  # highest over lowest: from here on equal ratios say more than equal steps
MOST_TICKS = 7
PREFIXES = ((1e12, 1e12, "T"), (1e9, 1e9, "G"), (1e5, 1e6, "M"))  # from where, the unit, its name


@dataclass(frozen=True, slots=True)
class Axis:
    """From low to high, which differ. A logarithmic one is above 0."""

    low: float
    high: float
    log: bool

    def at(self, value: float) -> float:
        """0 to 100, held there."""
        share = (self._turned(value) - self._turned(self.low)) / (
            self._turned(self.high) - self._turned(self.low)
        )
        return 100 * min(max(share, 0.0), 1.0)

    def ticks(self) -> list[float]:
        """Round values, at most `MOST_TICKS`."""
        if not self.log:
            return _stepped(self.low, self.high)
        first, last = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
        sparse = math.ceil((last - first) / (MOST_TICKS - 1))
        for digits, apart in (
            ((1, 1.5, 2, 3, 5, 7), 1),
            ((1, 2, 5), 1),
            ((1, 3), 1),
            ((1,), 1),
            ((1,), sparse),
        ):
            found = [digit * 10.0**power for power in range(first, last + 1, apart) for digit in digits]
            found = [value for value in found if self.low <= value <= self.high]
            if len(found) <= MOST_TICKS:
                break
        return found if len(found) > 1 else _stepped(self.low, self.high)

    def _turned(self, value: float) -> float:
        return math.log(max(value, self.low * 1e-3)) if self.log else value


def axis_of(values: Iterable[float], *, log: bool | None = None, around: float = 0.06) -> Axis:
    """That shows all of the values that are finite and above 0, with some room around; from 0 if linear.

    log: None where the values decide.
    """
    known = [value for value in values if math.isfinite(value) and value > 0] or [1.0]
    low, high = min(known), max(known)
    if log is None:
        log = high / low >= LOG_FROM
    if log:
        room = max(high / low, 1.5) ** around
        return Axis(low / room, high * room, log=True)
    return Axis(0.0, high * (1 + around), log=False)


def tick_label(value: float) -> str:
    """1,000 or 0.5 or 0.2 M or 189 G."""
    for least, size, prefix in PREFIXES:
        if value >= least:
            return f"{value / size:,.4g} {prefix}"
    return f"{value:,.6g}"


def _stepped(low: float, high: float) -> list[float]:
    rough = (high - low) / (MOST_TICKS - 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(size * power for size in (1, 2, 2.5, 5, 10) if size * power >= rough * 0.999)
    first = math.ceil(low / step)
    return [step * n for n in range(first, first + MOST_TICKS + 1) if step * n <= high]
