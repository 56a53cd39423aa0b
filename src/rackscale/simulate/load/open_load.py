"""Requests that come whether or not others are answered."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from rackscale.core import SpecError
from rackscale.simulate.load.arrival import Arrival
from rackscale.simulate.load.draw import generator
from rackscale.simulate.load.lengths import Lengths
from rackscale.simulate.load.limits import positive

TIMES, LENGTHS = 0, 1  # streams of one seed
MAX_VARIATION = 100  # beyond it gaps underflow to nothing
MAX_ARRIVALS = 100_000_000  # their times take 0.8 GB


class OpenLoad(Protocol):
    """A process of arrivals."""

    def times_s(self, duration_s: float, *seed: int) -> NDArray[np.float64]:
        """Rising times in 0 to duration_s; the same for the same seed.

        Raises SpecError for no duration, and for more than MAX_ARRIVALS.
        """
        ...


def open_load(
    load: OpenLoad, lengths: Lengths, *, duration_s: float, seed: int, priority: int = 0
) -> Iterator[Arrival]:
    """The load's arrivals in the order of time; they share no prefixes."""
    times_s = load.times_s(duration_s, seed, TIMES)
    pairs = lengths.draw(len(times_s), seed, LENGTHS)
    for at_s, (num_prompt, num_output) in zip(times_s.tolist(), pairs.tolist(), strict=True):
        yield Arrival(at_s, num_prompt, num_output, priority=priority)


@dataclass(frozen=True, kw_only=True, slots=True)
class Poisson:
    """Arrivals that know nothing of each other. Raises SpecError for a rate that is not above 0."""

    rate_per_s: float

    def __post_init__(self) -> None:
        positive("a rate", self.rate_per_s)

    def times_s(self, duration_s: float, *seed: int) -> NDArray[np.float64]:
        _check_number(self.rate_per_s, duration_s)
        random = generator(*seed)
        # Given their number, a Poisson process's times are even and independent.
        return np.sort(random.uniform(0, duration_s, random.poisson(self.rate_per_s * duration_s)))


@dataclass(frozen=True, kw_only=True, slots=True)
class GammaBursts:
    """Gamma gaps whose deviation is `variation` of their mean: bursts above 1, Poisson at 1, even below.

    The first gap starts at 0. Raises SpecError for a rate that is not above 0, a variation outside 0 to 100.
    """

    rate_per_s: float
    variation: float

    def __post_init__(self) -> None:
        positive("a rate", self.rate_per_s)
        positive("a coefficient of variation", self.variation)
        if self.variation > MAX_VARIATION:
            raise SpecError(
                f"a coefficient of variation of {self.variation:g} is above {MAX_VARIATION}", hint="give 3"
            )

    def times_s(self, duration_s: float, *seed: int) -> NDArray[np.float64]:
        _check_number(self.rate_per_s, duration_s)
        random = generator(*seed)
        shape = self.variation**-2
        batch = math.ceil(self.rate_per_s * duration_s) + 1
        parts: list[NDArray[np.float64]] = []
        end_s = 0.0
        while end_s < duration_s:
            parts.append(end_s + np.cumsum(random.gamma(shape, 1 / (self.rate_per_s * shape), batch)))
            end_s = float(parts[-1][-1])
        times_s = np.concatenate(parts)
        return times_s[times_s < duration_s]


@dataclass(frozen=True, kw_only=True, slots=True)
class Diurnal:
    """Poisson arrivals whose rate is a sine about rate_per_s, `swing` of it up and down in a period.

    It starts at the mean and rises. Drawn by thinning a process of the peak's rate (Lewis and Shedler 1979).
    Raises SpecError for a rate or a period that is not above 0, and for a swing outside 0 to 1.
    """

    rate_per_s: float
    swing: float
    period_s: float = 86400.0

    def __post_init__(self) -> None:
        positive("a rate", self.rate_per_s)
        positive("a period", self.period_s)
        if not 0 <= self.swing <= 1:
            raise SpecError(f"a swing of {self.swing:g} is not in 0 to 1", hint="give 0.5 for half the mean")

    def times_s(self, duration_s: float, *seed: int) -> NDArray[np.float64]:
        _check_number(self.rate_per_s, duration_s)
        random = generator(*seed)
        peak_per_s = self.rate_per_s * (1 + self.swing)
        times_s = np.sort(random.uniform(0, duration_s, random.poisson(peak_per_s * duration_s)))
        rate_per_s = self.rate_per_s * (1 + self.swing * np.sin(2 * np.pi * times_s / self.period_s))
        return times_s[random.uniform(0, peak_per_s, len(times_s)) < rate_per_s]


def _check_number(rate_per_s: float, duration_s: float) -> None:
    positive("a duration", duration_s)
    if rate_per_s * duration_s > MAX_ARRIVALS:
        raise SpecError(
            f"{rate_per_s:g} requests/s over {duration_s:g} s are more than {MAX_ARRIVALS}",
            hint="give a lower rate or a shorter time",
        )
