"""The destination's end of a network transfer: threads that write what comes into the cache.

The source's step is not done before it has heard that all has arrived. Where it gives up, or dies, bytes may
still be under way, for as long as TCP cares to send them again, and the engine gives the blocks to somebody
else. So before the engine hears of it this rank hears of the fence: of steps up to that one nothing is
written any more.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import count

import torch
from msgspec import DecodeError
from torch import Tensor
from torch.distributed import ProcessGroup, Work

from rackscale.core import GroupId, RankId, decode_json
from rackscale.runtime.kv_cache import KvLayers
from rackscale.runtime.network import NETWORK_ERRORS, STORE_LIMIT_S, Network
from rackscale.runtime.transfer.split import only
from rackscale.runtime.transfer.wire import (
    ALL_HEADS,
    DESTINATION,
    DONE,
    HEADER,
    HEADER_WORDS,
    LAYER,
    SLOTS,
    SOURCE,
    Caller,
    call_key,
    pair_name,
)
from rackscale.specs import Span

IDLE = timedelta(days=30)  # between two moves, and between two calls
NUM_AHEAD = 4  # layers

_LOG = logging.getLogger("rackscale.rank")


@dataclass(kw_only=True, slots=True, eq=False)
class Talk:
    """With one caller. over: it called again, so that what still comes here is of no use."""

    caller: Caller
    over: bool = False


class Inbox:
    """Of the rank whose cache has these layers. limit_s: how long a move that began may stand still."""

    def __init__(self, network: Network, layers: KvLayers, limit_s: float) -> None:
        self._network, self._layers = network, layers
        self._limit_s, self._limit = limit_s, timedelta(seconds=limit_s)
        self._lock = (
            threading.Lock()
        )  # held while something is written, so that a fence holds when it returns
        self._talks: dict[tuple[GroupId, RankId], Talk] = {}
        self._fences: dict[GroupId, tuple[int, int]] = {}
        self._start(self._accept)

    def fence(self, group: GroupId, incarnation: int, step: int) -> None:
        """Nothing is written any more of the group's steps up to this one."""
        with self._lock:
            self._fences[group] = max(self._fences.get(group, (0, 0)), (incarnation, step))

    def _start(self, work: Callable[..., None], *args: object) -> None:
        threading.Thread(target=work, args=args, daemon=True).start()

    def _accept(self) -> None:
        store = self._network.store(self._network.address, STORE_LIMIT_S)
        for number in count(1):
            store.wait([call_key(number)], IDLE)
            try:
                caller = decode_json(store.get(call_key(number)), Caller)
            except DecodeError:
                _LOG.warning("a call that says not who it is from")
                continue
            store.delete_key(call_key(number))
            self._start(self._listen, number, caller)

    def _listen(self, number: int, caller: Caller) -> None:
        """To one call, until it is over."""
        talk, whose = Talk(caller=caller), (caller.group, caller.rank)
        with self._lock:
            if whose in self._talks:
                self._talks[whose].over = True
            self._talks[whose] = talk
        try:
            store = self._network.store(self._network.address, self._limit_s)
            pair = self._network.group(store, pair_name(number), DESTINATION, 2, self._limit_s)
            while self._take(pair, talk):
                pass
        except NETWORK_ERRORS as error:
            _LOG.debug("the talk with rank %d of group %d is over: %s", caller.rank, caller.group, error)
        with self._lock:
            if self._talks.get(whose) is talk:
                del self._talks[whose]

    def _take(self, pair: ProcessGroup, talk: Talk) -> bool:
        """One move. False: nothing more is to be heard from there."""
        header = torch.empty(HEADER_WORDS, dtype=torch.int64)
        pair.recv([header], SOURCE, HEADER).wait(IDLE)
        step, num_slots, *heads = header.tolist()
        span = None if tuple(heads) == ALL_HEADS else Span(*heads)
        slots = torch.empty(num_slots, dtype=torch.int64)
        pair.recv([slots], SOURCE, SLOTS).wait(self._limit)
        layers = [tuple(only(part, span) for part in layer) for layer in self._layers]
        for layer, rows in zip(layers, self._rows(pair, layers, num_slots), strict=True):
            if not self._write(layer, slots, rows, talk, step):
                return False
        pair.send([header], SOURCE, DONE).wait(self._limit)
        return True

    def _rows(
        self, pair: ProcessGroup, layers: Sequence[tuple[Tensor, ...]], num_slots: int
    ) -> Iterator[list[Tensor]]:
        """Of each layer, as they come. Some are asked for ahead: the source asks before it sends."""
        coming: deque[tuple[list[Tensor], list[Work]]] = deque()
        for layer in layers:
            rows = [torch.empty(num_slots, *part.shape[1:], dtype=part.dtype) for part in layer]
            works = [pair.recv([part.view(torch.uint8)], SOURCE, LAYER) for part in rows]
            coming.append((rows, works))
            if len(coming) > NUM_AHEAD:
                yield self._come(*coming.popleft())
        while coming:
            yield self._come(*coming.popleft())

    def _come(self, rows: list[Tensor], works: list[Work]) -> list[Tensor]:
        for work in works:
            work.wait(self._limit)
        return rows

    def _write(
        self, layer: tuple[Tensor, ...], slots: Tensor, rows: list[Tensor], talk: Talk, step: int
    ) -> bool:
        """Whether that may be."""
        with self._lock:
            caller = talk.caller
            if talk.over or (caller.incarnation, step) <= self._fences.get(caller.group, (0, 0)):
                return False
            for part, new in zip(layer, rows, strict=True):
                part[slots] = new
        return True
