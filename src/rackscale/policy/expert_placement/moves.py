"""What a rank must load when the placement changes, and how to name ranks and slots so that it is little.

Axes: as in placement and draft; D domains.
"""

import numpy as np
import numpy.typing as npt

from rackscale.core import SpecError
from rackscale.policy.expert_placement.placement import Ints, Placement


def moves(old: Placement, new: Placement) -> Ints:
    """int32 [moves, 3]: (layer, slot, expert) for each slot whose rank did not hold the expert before.

    A rank that holds it in another slot loads nothing: the slots of a rank are interchangeable.
    Raises SpecError unless both place the same layers and experts on the same number of ranks.
    """
    held_LRE = old.holds()
    if held_LRE.shape != (new.num_layers, new.num_ranks, new.num_experts):
        raise SpecError("two placements of different shape", hint="same layers, ranks and experts")
    known_LRS = np.take_along_axis(held_LRE, new.experts_of_ranks, axis=2)
    layer_M, slot_M = np.nonzero(~known_LRS.reshape(new.logical.shape))
    return np.stack([layer_M, slot_M, new.logical[layer_M, slot_M]], axis=1).astype(np.int32)


def num_loads(old_RS: Ints, new_RS: Ints) -> int:
    """How many slots of one layer a rank must newly load; no rank of `new` holds an expert twice."""
    return new_RS.size - int((old_RS[:, :, None] == new_RS[:, None, :]).any(axis=1).sum())


def renamed(old_RS: Ints, new_RS: Ints, num_domains: int = 1) -> Ints:
    """The rows of `new`, in the order that leaves most experts where `old` has them.

    Ranks are alike, so which of them takes a row is free. Ranks of a domain stay together.
    """
    num_experts = int(max(old_RS.max(), new_RS.max())) + 1
    same_RR = _held(old_RS, num_experts) @ _held(new_RS, num_experts).T
    size = len(old_RS) // num_domains
    same_DRDR = same_RR.reshape(num_domains, size, num_domains, size)
    rows: list[int] = []
    for old_domain, new_domain in enumerate(_matched(same_DRDR.sum(axis=(1, 3)))):
        rows.extend(new_domain * size + row for row in _matched(same_DRDR[old_domain, :, new_domain]))
    return new_RS[rows]


def _held(experts_RS: Ints, num_experts: int) -> npt.NDArray[np.float32]:
    held_RE = np.zeros((len(experts_RS), num_experts), dtype=np.float32)
    np.put_along_axis(held_RE, experts_RS, values=1, axis=1)
    return held_RE


def _matched(same: npt.NDArray[np.float32]) -> list[int]:
    """For each row in turn, the column most alike of those not yet taken."""
    same, columns = same.copy(), []
    for row in same:
        columns.append(int(row.argmax()))
        same[:, columns[-1]] = -1
    return columns


def kept_in_place(old_RS: Ints, new_RS: Ints) -> Ints:
    """The same ranks' experts, but what a rank holds in `old` already stays in its slot.

    No rank of `new` holds an expert twice; of two slots that do so in `old` the first one keeps it.
    """
    first_RS = (old_RS[:, :, None] == old_RS[:, None, :]).argmax(axis=2) == np.arange(old_RS.shape[1])
    same_RSS = (old_RS[:, :, None] == new_RS[:, None, :]) & first_RS[:, :, None]
    placed_RS = old_RS.copy()
    placed_RS[~same_RSS.any(axis=2)] = new_RS[~same_RSS.any(axis=1)]
    return placed_RS
