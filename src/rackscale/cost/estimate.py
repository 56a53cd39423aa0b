"""What an operator costs. Nothing else in the project computes time."""

from dataclasses import dataclass, fields
from typing import Self

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64] | float


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Estimate:
    """Seconds on one chip, and what it does in them. Numbers, or arrays that broadcast: one entry for each
    layout, row or draw.

    `a + b`: one after the other. `a | b`: overlapped, as long as the longer. `n * a`: n times.
    flops, bytes_hbm, bytes_link, joules: of one chip.
    """

    seconds: Array = 0.0
    flops: Array = 0.0
    bytes_hbm: Array = 0.0
    bytes_link: Array = 0.0
    joules: Array = 0.0

    __array_ufunc__ = None  # so that an array times an estimate is ours to compute

    def __add__(self, other: Self) -> Self:
        return type(self)(**{name: getattr(self, name) + getattr(other, name) for name in _NAMES})

    def __or__(self, other: Self) -> Self:
        both = self + other
        return both.lasting(np.maximum(self.seconds, other.seconds))

    def __rmul__(self, times: Array) -> Self:
        return type(self)(**{name: times * getattr(self, name) for name in _NAMES})

    def lasting(self, seconds: Array) -> Self:
        """The same work in other time."""
        kept = {name: getattr(self, name) for name in _NAMES if name != "seconds"}
        return type(self)(seconds=seconds, **kept)

    def drawing(self, watts: Array) -> Self:
        """The same with the energy that so many watts take in its time."""
        kept = {name: getattr(self, name) for name in _NAMES if name != "joules"}
        return type(self)(joules=self.seconds * watts, **kept)


_NAMES = tuple(field.name for field in fields(Estimate))
