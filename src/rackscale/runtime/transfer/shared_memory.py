"""KV to ranks of the same host, whose caches are mapped here: one copy a layer."""

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Self

import torch
from torch import Tensor

from rackscale.core import GroupId, IntColumn, KvPush, RankId, RequestId
from rackscale.runtime.kv_cache import KvCache, KvLayers
from rackscale.runtime.messages import Door
from rackscale.runtime.transfer.transfer import source_slots, target_slots


class SharedTransfer:
    """See `Transfer`. caches: the layers of every rank of this host."""

    def __init__(self, caches: Mapping[tuple[GroupId, RankId], KvLayers]) -> None:
        self._caches = caches

    def know(self, step: int, doors: Sequence[Door]) -> None:
        """Ranks of this host need no door."""

    def fence(self, group: GroupId, incarnation: int, step: int) -> None:
        """What a dead process of this host wrote is written."""

    def begin(self, pushes: Sequence[KvPush], cache: KvCache) -> "SharedMove":
        return SharedMove(
            cache.layers,
            [
                (
                    self._caches[push.group, push.rank],
                    _index(source_slots(push, cache)),
                    _index(target_slots(push)),
                )
                for push in pushes
            ],
        )


class SharedMove:
    """See `Move`."""

    def __init__(self, source: KvLayers, targets: list[tuple[KvLayers, Tensor, Tensor]]) -> None:
        self._source, self._targets = source, targets
        self.num_bytes = 0
        self.lost: tuple[RequestId, ...] = ()

    def after_layer(self, layer: int) -> None:
        for target, from_slots, to_slots in self._targets:
            for part, other in zip(self._source[layer], target[layer], strict=True):
                moved = part[from_slots]
                other[to_slots] = moved
                self.num_bytes += moved.nbytes

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """A copy is there when it is made."""


def _index(slots: IntColumn) -> Tensor:
    return torch.from_numpy(slots).long()
