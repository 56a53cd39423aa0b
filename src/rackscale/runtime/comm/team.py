"""A team: the ranks that share an attention, and add up what its heads give."""

from typing import Protocol

from torch import Tensor

from rackscale.runtime.comm.all_to_all import CommTimes


class Team(Protocol):
    """One member's end. index: which of the `size` members. All members call the same, in the same order.
    Nothing waits longer than a limit: RankLostError then."""

    index: int
    size: int

    def all_reduce(self, part: Tensor) -> Tensor:
        """The sum of all members' parts, the same bits on each; in fp32, whatever the parts are in. May be
        written to `part`."""
        ...

    def take_times(self) -> CommTimes:
        """Where time went since the last look."""
        ...
