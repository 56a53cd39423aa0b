"""All-to-all through memory that all ranks of a domain have mapped (csrc/all_to_all.cpp)."""

from functools import cached_property

import torch
from torch import Tensor

from rackscale.core import CapacityError, IntColumn, RankLostError
from rackscale.runtime import _native
from rackscale.runtime.comm.all_to_all import CommTimes
from rackscale.runtime.comm.wire import WIRE_NUMBERS, Wire

SPIN_S = 100e-6  # twice what it costs to sleep and be woken: one who slept must not make the next one sleep
NS_PER_S = 1e9
DOUBLES = 3  # the wire of csrc/all_to_all.hpp that only sums come back on


def domain_of(
    rank: int, num_ranks: int, hidden: int, top_k: int, capacity: int, dispatch: Wire, combine: Wire | None
) -> _native.Domain:
    """The sizes that all ranks of a domain agree on, and which of them this is. combine None: in doubles."""
    return _native.Domain(
        rank=rank,
        num_ranks=num_ranks,
        hidden=hidden,
        top_k=top_k,
        capacity=capacity,
        dispatch=WIRE_NUMBERS[dispatch],
        combine=DOUBLES if combine is None else WIRE_NUMBERS[combine],
    )


def domain_bytes(
    num_ranks: int, hidden: int, top_k: int, capacity: int, wire: Wire = Wire.FP32, *, exact: bool = False
) -> int:
    """The size of one rank's segment."""
    combine = None if exact else wire
    return domain_of(0, num_ranks, hidden, top_k, capacity, wire, combine).segment_bytes()


def check_capacity(num_tokens: int, capacity: int) -> None:
    """Raises CapacityError if a rank has more tokens at once than was said."""
    if num_tokens > capacity:
        raise CapacityError(
            f"{num_tokens} tokens at once, and boxes in shared memory are for {capacity}",
            hint="lower --max-batched-tokens",
        )


class SharedReceived:
    """See `Received`. Rows are gathered when they are asked for."""

    def __init__(self, native: _native.AllToAll, count: int, hidden: int, top_k: int) -> None:
        self._native, self.count, self._hidden, self._top_k = native, count, hidden, top_k

    @cached_property
    def _taken(self) -> tuple[Tensor, Tensor, Tensor]:
        hidden_NH = torch.empty(self.count, self._hidden)
        experts_NK = torch.empty(self.count, self._top_k, dtype=torch.int32)
        gates_NK = torch.empty(self.count, self._top_k)
        self._native.take(hidden_NH.data_ptr(), experts_NK.data_ptr(), gates_NK.data_ptr())
        return hidden_NH, experts_NK, gates_NK

    @property
    def hidden_NH(self) -> Tensor:
        return self._taken[0]

    @property
    def experts_NK(self) -> Tensor:
        return self._taken[1]

    @property
    def gates_NK(self) -> Tensor:
        return self._taken[2]


class SharedAllToAll:
    """See `AllToAll`. addresses: of all ranks' segments, of `domain_bytes` each and zeroed at first.

    capacity: tokens of one rank at once. wire: of tokens on their way; those that stay are not touched.
    exact: sums come back in doubles and are rounded once, so that they are the same wherever the experts are.
    spin_s: how long a rank looks before it sleeps; 0 where ranks share cores. limit_s: of every wait.
    """

    def __init__(
        self,
        rank: int,
        addresses: list[int],
        *,
        hidden: int,
        top_k: int,
        capacity: int,
        wire: Wire = Wire.FP32,
        exact: bool = False,
        spin_s: float = SPIN_S,
        limit_s: float = 60.0,
    ) -> None:
        combine = None if exact else wire
        domain = domain_of(rank, len(addresses), hidden, top_k, capacity, wire, combine)
        self.native = _native.AllToAll(domain, addresses, int(spin_s * NS_PER_S), int(limit_s * NS_PER_S))
        self.num_ranks, self._hidden, self._top_k = len(addresses), hidden, top_k
        self._capacity, self._sums = capacity, torch.float64 if exact else torch.float32
        self._out_TH = torch.empty(0, hidden)  # kept: fresh pages cost more than what is written to them
        self._sent: tuple[Tensor, Tensor, Tensor] | None = None

    def place(self, layer: int, ranks_EC: IntColumn, counts_E: IntColumn) -> None:
        self.native.place(layer, ranks_EC, counts_E)

    def dispatch(self, layer: int, hidden_TH: Tensor, gates_TK: Tensor, experts_TK: Tensor) -> None:
        check_capacity(len(hidden_TH), self._capacity)
        hidden_TH, gates_TK = hidden_TH.float().contiguous(), gates_TK.float().contiguous()
        experts_TK = experts_TK.int().contiguous()
        self._sent = hidden_TH, gates_TK, experts_TK
        self.native.dispatch(
            layer, hidden_TH.data_ptr(), experts_TK.data_ptr(), gates_TK.data_ptr(), len(hidden_TH)
        )

    def receive(self) -> SharedReceived:
        try:
            count = self.native.receive()
        except RuntimeError as error:
            raise RankLostError(str(error)) from None
        return SharedReceived(self.native, count, self._hidden, self._top_k)

    def combine(self, sums_NH: Tensor) -> Tensor:
        assert self._sent is not None, "dispatch comes first"
        sums_NH, num_tokens = sums_NH.to(self._sums).contiguous(), len(self._sent[0])
        if num_tokens > len(self._out_TH):
            self._out_TH = torch.empty(min(2 * num_tokens, self._capacity), self._hidden)
        out_TH = self._out_TH[:num_tokens]
        try:
            self.native.combine(sums_NH.data_ptr())
            self.native.collect(out_TH.data_ptr())
        except RuntimeError as error:
            raise RankLostError(str(error)) from None
        self._sent = None
        return out_TH

    def take_times(self) -> CommTimes:
        wait_ns, copy_ns, num_bytes = self.native.take_times()
        return CommTimes(wait_s=wait_ns / NS_PER_S, copy_s=copy_ns / NS_PER_S, num_bytes=num_bytes)
