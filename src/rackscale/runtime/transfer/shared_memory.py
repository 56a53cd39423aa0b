"""KV to ranks of the same host, whose caches are mapped here: one copy a layer."""

from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import NamedTuple, Self

from rackscale.core import GroupId, IntColumn, KvPush, RankId, RequestId
from rackscale.runtime.kv_cache import KvCache, KvLayers
from rackscale.runtime.messages import Door
from rackscale.runtime.transfer.copy import copy_slots
from rackscale.runtime.transfer.split import KvSplit, only, ways
from rackscale.runtime.transfer.transfer import source_slots, target_slots
from rackscale.specs import Span


class SharedTransfer:
    """See `Transfer`. caches: the layers of every rank of this host. split: see `ways`."""

    def __init__(
        self, caches: Mapping[tuple[GroupId, RankId], KvLayers], split: KvSplit | None = None
    ) -> None:
        self._caches, self._split = caches, split

    def know(self, step: int, doors: Sequence[Door]) -> None:
        """Ranks of this host need no door."""

    def fence(self, group: GroupId, incarnation: int, step: int) -> None:
        """What a dead process of this host wrote is written."""

    def begin(self, pushes: Sequence[KvPush], cache: KvCache) -> "SharedMove":
        return SharedMove(cache.layers, [route for push in pushes for route in self._routes(push, cache)])

    def _routes(self, push: KvPush, cache: KvCache) -> Iterator["Route"]:
        slots = source_slots(push, cache), target_slots(push)
        for rank, from_heads, to_heads in ways(self._split, (push.group, push.rank)):
            yield Route(self._caches[push.group, rank], *slots, from_heads, to_heads)


class Route(NamedTuple):
    """A push's way to one rank. heads: that go, as the source and as the target counts them; None: all."""

    layers: KvLayers
    from_slots: IntColumn
    to_slots: IntColumn
    from_heads: Span | None
    to_heads: Span | None


class SharedMove:
    """See `Move`."""

    def __init__(self, source: KvLayers, routes: list[Route]) -> None:
        self._source, self._routes = source, routes
        self.num_bytes = 0
        self.lost: tuple[RequestId, ...] = ()

    def after_layer(self, layer: int) -> None:
        for route in self._routes:
            for part, other in zip(self._source[layer], route.layers[layer], strict=True):
                source, target = only(part, route.from_heads), only(other, route.to_heads)
                self.num_bytes += copy_slots(source, route.from_slots, target, route.to_slots)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """A copy is there when it is made."""
