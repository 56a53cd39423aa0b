"""Groups of ranks, as columns."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Layouts:
    """One group each, [R]. ranks: chips of a group. tp: ranks that share an attention; ranks / tp attentions
    each have rows of their own. ep: ranks that a layer's experts are spread over; each is split over ranks /
    ep of them. slots: places for experts in the whole group, redundant ones included. micro_batches: 2 where
    the all-to-all of one half runs under the other's computing.
    """

    ranks: Array
    tp: Array
    ep: Array
    slots: Array
    micro_batches: Array

    @property
    def attentions(self) -> Array:
        return self.ranks / self.tp


def layouts(
    *,
    ranks: Array | float,
    tp: Array | float,
    ep: Array | float,
    slots: Array | float,
    micro_batches: Array | float = 1.0,
) -> Layouts:
    """Columns of what is given, as long as the longest."""
    columns = np.broadcast_arrays(
        *(np.asarray(column, dtype=np.float64) for column in (ranks, tp, ep, slots, micro_batches))
    )
    names = ("ranks", "tp", "ep", "slots", "micro_batches")
    return Layouts(**{name: np.atleast_1d(column) for name, column in zip(names, columns, strict=True)})
