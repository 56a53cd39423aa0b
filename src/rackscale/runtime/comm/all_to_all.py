"""All-to-all of a group: tokens go to the ranks of their experts, and sums come back.

Axes: T tokens of this rank, N tokens that it received, K experts a token, H hidden, E experts, C copies.
"""

from typing import NamedTuple, Protocol

from torch import Tensor

from rackscale.core import IntColumn


class CommTimes(NamedTuple):
    """Since the last look: seconds spent waiting for other ranks and copying, and bytes that were sent."""

    wait_s: float
    copy_s: float
    num_bytes: int


class Received(Protocol):
    """What a rank has to compute: each token once, whichever rank it is from. Void after `combine`."""

    @property
    def count(self) -> int: ...

    @property
    def hidden_NH(self) -> Tensor: ...

    @property
    def experts_NK(self) -> Tensor:
        """int32; -1 where a token has fewer than K experts on this rank."""
        ...

    @property
    def gates_NK(self) -> Tensor: ...


class AllToAll(Protocol):
    """One rank's end. Every rank of the group calls `dispatch` and `combine` once for each layer with
    experts, in the same order, with no tokens if it has none. Nothing waits longer than a limit:
    RankLostError then."""

    def place(self, layer: int, ranks_EC: IntColumn, counts_E: IntColumn) -> None:
        """Which ranks have copies of a layer's experts, from the next `dispatch` on."""
        ...

    def dispatch(self, layer: int, hidden_TH: Tensor, gates_TK: Tensor, experts_TK: Tensor) -> None:
        """Send each token once to each rank that has any of its experts. layer: among those with experts."""
        ...

    def receive(self) -> Received:
        """Wait for the tokens of all ranks."""
        ...

    def combine(self, sums_NH: Tensor) -> Tensor:
        """Send back of each received token the gated sum of its experts here; gives the sums of this rank's
        own tokens, [T, H], void after the next `combine`."""
        ...

    def take_times(self) -> CommTimes:
        """Where time went."""
        ...
