"""How many groups of prompts go with how many of answers, in whole ranks within a budget of chips."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Numbers = NDArray[np.intp]

MOST_GROUPS = 24  # of a pool; more chips get copies of the deployment
MOST_BUSY = 0.95  # of prefill ranks: beyond it the wait grows without end
MORE_PREFILL = 3  # numbers of prefill groups that are looked at, from the fewest that keep up on


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Pairs:
    """[N]: numbers of a decode and of a prefill pool, and how many groups of each."""

    decode: Numbers
    prefill: Numbers
    decode_groups: Array
    prefill_groups: Array

    def __len__(self) -> int:
        return len(self.decode)

    def take(self, numbers: Numbers) -> "Pairs":
        """Those, in that order."""
        return Pairs(
            decode=self.decode[numbers],
            prefill=self.prefill[numbers],
            decode_groups=self.decode_groups[numbers],
            prefill_groups=self.prefill_groups[numbers],
        )


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Sides:
    """What pairs are made of. decode_ranks, rate [A]: of a decode group, and its requests per second.
    prefill_ranks, each_s [B]: of a prefill group, and its seconds for a prompt. same [A, B]: which may be
    paired."""

    decode_ranks: Array
    rate: Array
    prefill_ranks: Array
    each_s: Array
    same: NDArray[np.bool_]


def pairs(sides: Sides, decode: Numbers, groups: int, chips: int, more_prefill: int = MORE_PREFILL) -> Pairs:
    """All within the chips whose prefill ranks keep up, of these decode pools with so many groups. For each
    the fewest prefill groups that keep up, and so many numbers of them in all."""
    fewest = np.ceil(groups * sides.rate[decode][:, None] * sides.each_s / MOST_BUSY)
    left = (chips - groups * sides.decode_ranks[decode])[:, None]
    found: list[tuple[Numbers, Numbers, Array]] = []
    for more in range(more_prefill):
        needed = fewest + more
        legal = sides.same[decode] & (needed * sides.prefill_ranks <= left) & (needed <= MOST_GROUPS)
        row, column = np.nonzero(legal)
        if not len(row):
            break
        found.append((decode[row], column, needed[row, column]))
    rows, columns, prefill_groups = (
        np.concatenate(part) for part in zip(*found or [(decode[:0], decode[:0], np.zeros(0))], strict=True)
    )
    return Pairs(
        decode=rows,
        prefill=columns,
        decode_groups=np.full(len(rows), float(groups)),
        prefill_groups=prefill_groups,
    )


def fewest_chips(sides: Sides, groups: int) -> Array:
    """Of any deployment [A] with so many groups of a decode pool: a bound from below, ranks in parts."""
    if not len(sides.each_s):
        return np.full(len(sides.rate), np.inf)
    each = (sides.each_s * sides.prefill_ranks).min() / MOST_BUSY
    prefill = np.maximum(groups * sides.rate * each, sides.prefill_ranks.min())
    return np.asarray(groups * sides.decode_ranks + prefill)
