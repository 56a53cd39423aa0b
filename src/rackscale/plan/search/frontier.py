"""Which candidates no other is better than."""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Numbers = NDArray[np.intp]


def nondominated(first: Array, second: Array, *others: Array) -> Numbers:
    """Numbers of those that no other is as cheap as in every cost; of equals the first. In rising order."""
    table = np.stack([first, second, *others], 1)
    order = np.lexsort(table.T[::-1])
    order = order[~_beaten(table[order], table[staircase(first, -second)])]
    table = table[order]
    kept: list[int] = []
    while len(order):
        kept.append(int(order[0]))
        better = (table < table[0]).any(1)
        order, table = order[better], table[better]
    return np.sort(np.array(kept, dtype=np.intp))


def _beaten(table: Array, some: Array) -> NDArray[np.bool_]:
    """Which rows one of those is better than in a cost and no worse in any."""
    better, worse = np.zeros((2, len(some), len(table)), dtype=np.bool_)
    for column in range(table.shape[1]):
        better |= some[:, column, None] < table[:, column]
        worse |= some[:, column, None] > table[:, column]
    return np.asarray((better & ~worse).any(0))


def staircase(cost: Array, value: Array) -> Numbers:
    """Numbers of those that have more value than all that cost less, or as much; the cheapest first."""
    order = np.lexsort((-value, cost))
    steps = value[order] > np.maximum.accumulate(np.concatenate([[-np.inf], value[order]]))[:-1]
    return np.asarray(order[steps], dtype=np.intp)


class Stairs:
    """The most value that was found at each cost, to hold bounds against."""

    def __init__(self) -> None:
        self._cost, self._value = np.zeros(0), np.zeros(0)

    def add(self, cost: Array, value: Array) -> None:
        """More that was found."""
        cost, value = np.concatenate([self._cost, cost]), np.concatenate([self._value, value])
        steps = staircase(cost, value)
        self._cost, self._value = cost[steps], value[steps]

    def reached(self, cost: Array) -> Array:
        """The most value at no more than the cost; -inf where there is none."""
        values = np.concatenate([[-np.inf], self._value])
        return np.asarray(values[np.searchsorted(self._cost, cost, side="right")])
