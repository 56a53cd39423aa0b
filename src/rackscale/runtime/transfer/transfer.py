"""What carries KV: started with a step, told of each layer, waited for at the end.

A move is described by positions, so block sizes may differ between the two sides.
"""

from collections.abc import Sequence
from types import TracebackType
from typing import Protocol, Self

import numpy as np

from rackscale.core import GroupId, IntColumn, KvPush, RequestId
from rackscale.runtime.kv_cache import KvCache
from rackscale.runtime.messages import Door


class Move(Protocol):
    """The pushes of one step, under way. Leaving the context waits until all KV has arrived, or not longer
    than a limit: `lost` are those of which nothing will arrive any more."""

    @property
    def num_bytes(self) -> int: ...

    @property
    def lost(self) -> tuple[RequestId, ...]: ...

    def after_layer(self, layer: int) -> None:
        """The layer's KV is in the source's cache: send it."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Transfer(Protocol):
    """From one rank to all others that it may push to."""

    def know(self, step: int, doors: Sequence[Door]) -> None:
        """The next step's number, and where those ranks of other hosts are that it pushes to."""
        ...

    def fence(self, group: GroupId, incarnation: int, step: int) -> None:
        """When this returns, nothing is written here any more of that group's steps up to this one, in this
        life of it or an earlier one."""
        ...

    def begin(self, pushes: Sequence[KvPush], cache: KvCache) -> Move:
        """Start the pushes of a step. cache: the source's."""
        ...


def source_slots(push: KvPush, cache: KvCache) -> IntColumn:
    """Where the tokens are in the source's cache."""
    positions = np.arange(push.start, push.end, dtype=np.int32)
    return cache.slots(np.full_like(positions, push.row), positions)


def target_slots(push: KvPush) -> IntColumn:
    """Where the tokens go in the destination's cache."""
    positions = np.arange(push.start, push.end, dtype=np.int32)
    slots: IntColumn = (
        push.blocks[positions // push.block_size] * push.block_size + positions % push.block_size
    )
    return slots
