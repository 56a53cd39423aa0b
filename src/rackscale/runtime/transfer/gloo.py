"""KV to ranks of other hosts, over pairs of gloo: layers are on their way while later ones compute."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import groupby
from time import monotonic
from types import TracebackType
from typing import Self

import numpy as np
import torch
from torch import Tensor
from torch.distributed import ProcessGroup, Work

from rackscale.core import GroupId, IntColumn, KvPush, RankId, RequestId, encode_json
from rackscale.runtime.kv_cache import KvCache
from rackscale.runtime.messages import Door
from rackscale.runtime.network import NETWORK_ERRORS, Network, within
from rackscale.runtime.transfer.inbox import Inbox
from rackscale.runtime.transfer.split import KvSplit, only, ways
from rackscale.runtime.transfer.transfer import source_slots, target_slots
from rackscale.runtime.transfer.wire import (
    ALL_HEADS,
    CALLS,
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

Place = tuple[GroupId, RankId]
MIN_WAIT_S = 0.001


class GlooTransfer:
    """See `Transfer`. caller: this rank, as others have to know it. inbox: what takes what others push here.

    limit_s: from when a step's KV could have been sent until it has arrived, and again once more. split: see
    `ways`.
    """

    def __init__(
        self,
        network: Network,
        caller: Caller,
        inbox: Inbox,
        limit_s: float,
        split: KvSplit | None = None,
    ) -> None:
        self._network, self._inbox, self._split, self.limit_s = network, inbox, split, limit_s
        self._caller = encode_json(caller).decode()
        self._addresses: dict[Place, str] = {}
        self._pairs: dict[str, ProcessGroup] = {}
        self.step = 0

    def know(self, step: int, doors: Sequence[Door]) -> None:
        self.step = step
        self._addresses = {(door.group, door.rank): door.address for door in doors}

    def fence(self, group: GroupId, incarnation: int, step: int) -> None:
        self._inbox.fence(group, incarnation, step)

    def begin(self, pushes: Sequence[KvPush], cache: KvCache) -> "GlooMove":
        legs = [leg for seat, some in _by_seat(pushes) for leg in self._legs(seat, some, cache)]
        return GlooMove(self, legs, cache)

    def _legs(self, seat: Place, pushes: list[KvPush], cache: KvCache) -> Iterator["Leg"]:
        from_slots = _joined([source_slots(push, cache) for push in pushes])
        to_slots = _joined([target_slots(push) for push in pushes])
        for rank, from_heads, to_heads in ways(self._split, seat):
            yield Leg(
                address=self._addresses.get((seat[0], rank), ""),
                requests=tuple(push.request for push in pushes),
                from_slots=from_slots,
                to_slots=to_slots,
                from_heads=from_heads,
                to_heads=to_heads,
            )

    def pair(self, address: str, limit_s: float) -> ProcessGroup:
        """The pair with the rank at an address: the one that is there, or a new one.

        Raises one of NETWORK_ERRORS.
        """
        if address not in self._pairs:
            self._pairs[address] = within(limit_s, lambda: self._call(address, limit_s))
        return self._pairs[address]

    def _call(self, address: str, limit_s: float) -> ProcessGroup:
        store = self._network.store(address, limit_s)
        number = store.add(CALLS, 1)
        store.set(call_key(number), self._caller)
        return self._network.group(store, pair_name(number), SOURCE, 2, limit_s)

    def hang_up(self, address: str) -> None:
        """The pair is of no use any more."""
        self._pairs.pop(address, None)


@dataclass(kw_only=True, slots=True)
class Leg:
    """What a step sends to one rank. sent: what may still be on its way, with what it is read from; None: the
    leg failed. address "": nobody knows where the rank is. heads: see `ways`."""

    address: str
    requests: tuple[RequestId, ...]
    from_slots: Tensor
    to_slots: Tensor
    from_heads: Span | None
    to_heads: Span | None
    pair: ProcessGroup | None = None
    sent: list[tuple[Work, Tensor]] = field(default_factory=list)

    def send(self, data: Tensor, tag: int) -> int:
        """Gives the number of bytes."""
        assert self.pair is not None, "only a leg that began sends"
        flat = data.contiguous().view(torch.uint8)
        self.sent.append((self.pair.send([flat], DESTINATION, tag), flat))
        return flat.nbytes


class GlooMove:
    """See `Move`. What fails is tried a second time, over a new pair, when all layers are there."""

    def __init__(self, transfer: GlooTransfer, legs: list[Leg], cache: KvCache) -> None:
        self._transfer, self._legs, self._layers = transfer, legs, cache.layers
        self.num_bytes = 0
        self.lost: tuple[RequestId, ...] = ()

    def __enter__(self) -> Self:
        self._connect(self._legs)
        return self

    def after_layer(self, layer: int) -> None:
        for leg in self._legs:
            self._send(leg, layer)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            return  # the rank is about to end
        failed = self._finish(self._legs)
        if failed:
            self._connect(failed)
            for leg in failed:
                for layer in range(len(self._layers)):
                    self._send(leg, layer)
            failed = self._finish(failed)
        self.lost = tuple(request for leg in failed for request in leg.requests)

    def _connect(self, legs: list[Leg]) -> None:
        deadline = monotonic() + self._transfer.limit_s
        for leg in legs:
            leg.sent.clear()
            if not leg.address:
                continue
            try:
                leg.pair = self._transfer.pair(leg.address, _left_s(deadline))
                heads = (leg.to_heads.start, leg.to_heads.end) if leg.to_heads else ALL_HEADS
                leg.send(torch.tensor([self._transfer.step, len(leg.to_slots), *heads]), HEADER)
                leg.send(leg.to_slots, SLOTS)
            except NETWORK_ERRORS:
                self._fail(leg)

    def _send(self, leg: Leg, layer: int) -> None:
        if leg.pair is None:
            return
        try:
            for part in self._layers[layer]:
                self.num_bytes += leg.send(only(part, leg.from_heads)[leg.from_slots], LAYER)
        except NETWORK_ERRORS:
            self._fail(leg)

    def _finish(self, legs: list[Leg]) -> list[Leg]:
        """Wait until the legs have arrived. Gives those that have not."""
        deadline = monotonic() + self._transfer.limit_s
        for leg in legs:
            self._await(leg, deadline)
        return [leg for leg in legs if leg.pair is None]

    def _await(self, leg: Leg, deadline: float) -> None:
        if leg.pair is None:
            return
        done = torch.empty(HEADER_WORDS, dtype=torch.int64)
        try:
            leg.pair.recv([done], DESTINATION, DONE).wait(timedelta(seconds=_left_s(deadline)))
            for work, _ in leg.sent:
                work.wait(timedelta(seconds=_left_s(deadline)))
        except NETWORK_ERRORS:
            self._fail(leg)

    def _fail(self, leg: Leg) -> None:
        self._transfer.hang_up(leg.address)
        leg.pair = None


def _by_seat(pushes: Sequence[KvPush]) -> list[tuple[Place, list[KvPush]]]:
    """By where they go."""
    in_order = sorted(pushes, key=_seat)
    return [(seat, list(some)) for seat, some in groupby(in_order, key=_seat)]


def _seat(push: KvPush) -> Place:
    return push.group, push.rank


def _joined(slots: list[IntColumn]) -> Tensor:
    return torch.from_numpy(np.concatenate(slots)).long()


def _left_s(deadline: float) -> float:
    return max(deadline - monotonic(), MIN_WAIT_S)
