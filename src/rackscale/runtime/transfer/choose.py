"""Shared memory to ranks of this host, the network to all others."""

from collections.abc import Collection, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Self

from rackscale.core import GroupId, KvPush, RankId, RequestId
from rackscale.runtime.kv_cache import KvCache
from rackscale.runtime.messages import Door
from rackscale.runtime.transfer.transfer import Move, Transfer


class ChosenTransfer:
    """See `Transfer`. here: the ranks of this host."""

    def __init__(self, here: Collection[tuple[GroupId, RankId]], near: Transfer, far: Transfer) -> None:
        self._here, self._near, self._far = here, near, far

    def know(self, step: int, doors: Sequence[Door]) -> None:
        self._far.know(step, doors)

    def fence(self, group: GroupId, incarnation: int, step: int) -> None:
        self._far.fence(group, incarnation, step)

    def begin(self, pushes: Sequence[KvPush], cache: KvCache) -> Move:
        near = [push for push in pushes if (push.group, push.rank) in self._here]
        far = [push for push in pushes if (push.group, push.rank) not in self._here]
        if not far:
            return self._near.begin(near, cache)
        if not near:
            return self._far.begin(far, cache)
        return Moves([self._near.begin(near, cache), self._far.begin(far, cache)])


class Moves:
    """See `Move`: several, side by side."""

    def __init__(self, moves: list[Move]) -> None:
        self._moves, self._open = moves, ExitStack()

    @property
    def num_bytes(self) -> int:
        return sum(move.num_bytes for move in self._moves)

    @property
    def lost(self) -> tuple[RequestId, ...]:
        return tuple(request for move in self._moves for request in move.lost)

    def after_layer(self, layer: int) -> None:
        for move in self._moves:
            move.after_layer(layer)

    def __enter__(self) -> Self:
        for move in self._moves:
            self._open.enter_context(move)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.__exit__(kind, error, trace)
