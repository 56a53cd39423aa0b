"""Room at the rank that will decode a sequence, while another one still prefills it."""

from collections.abc import Callable
from dataclasses import dataclass

from rackscale.core import GroupId, IntColumn, KvPush, RankId, RequestId


@dataclass(kw_only=True, slots=True, eq=False)
class Reservation:
    """At rank `number` of `group`. blocks: owned there, from the sequence's first on, of which `num_shared`
    were cached. num_there: tokens whose KV is there or on its way. give_up: has that rank release the blocks.

    Steps in flight may still write to the blocks of a reservation that is dropped. So they are given up when
    the last of these steps has landed, not before.
    """

    group: GroupId
    number: RankId
    give_up: Callable[["Reservation"], None]
    blocks: IntColumn
    num_shared: int
    num_there: int
    num_in_flight: int = 0
    dropped: bool = False

    def push(self, request: RequestId, row: int, end: int, block_size: int) -> KvPush | None:
        """What a step that computes up to `end` sends; None where all of it is there."""
        if end <= self.num_there:
            return None
        start, self.num_there = self.num_there, end
        self.num_in_flight += 1
        return KvPush(
            request=request,
            row=row,
            start=start,
            end=end,
            group=self.group,
            rank=self.number,
            blocks=self.blocks,
            block_size=block_size,
        )

    def landed(self) -> None:
        """A step that pushed has arrived, or will never write again."""
        self.num_in_flight -= 1
        self._settle()

    def drop(self) -> None:
        """The sequence will not come. Again: nothing."""
        if not self.dropped:
            self.dropped = True
            self._settle()

    def _settle(self) -> None:
        if self.dropped and not self.num_in_flight:
            self.give_up(self)
