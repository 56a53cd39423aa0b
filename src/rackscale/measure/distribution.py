"""Many values in five numbers."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True, slots=True)
class Distribution:
    """count values, at least one; percentiles between two values are interpolated."""

    count: int
    mean: float
    p50: float
    p90: float
    p99: float


def distribution(values: Iterable[float]) -> Distribution | None:
    """The values' distribution, or None where there are none."""
    array = np.fromiter(values, dtype=np.float64)
    if not len(array):
        return None
    p50, p90, p99 = np.percentile(array, (50, 90, 99)).tolist()
    return Distribution(count=len(array), mean=float(array.mean()), p50=p50, p90=p90, p99=p99)
