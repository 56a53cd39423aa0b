"""All-to-all of ranks on several hosts: memory inside a host, the network between hosts.

A token crosses the network once for each host that has any of its experts. A rank of that host takes it (its
relay there), and hands it on through memory, as if it were one of its own; what comes of it on that host
comes back as one sum. So it is one all-to-all within another: the outer one takes each host for one rank, and
what a rank receives there is what it dispatches in the inner one.
"""

from collections.abc import Sequence

import numpy as np
from torch import Tensor
from torch.distributed import ProcessGroup, ProcessGroupGloo

from rackscale.core import IntColumn
from rackscale.runtime.comm.all_to_all import CommTimes
from rackscale.runtime.comm.gloo import GlooAllToAll
from rackscale.runtime.comm.shared_memory import SPIN_S, SharedAllToAll, SharedReceived, check_capacity
from rackscale.runtime.comm.wire import Wire

Hosts = Sequence[Sequence[int]]  # the ranks of each host


def relayed_capacity(hosts: Hosts, host: int, capacity: int) -> int:
    """How many tokens a rank of `host` may have to dispatch there, its own and those that it relays: what the
    segments of a host are made for. capacity: tokens of one rank at once."""
    here = len(hosts[host])
    far = sum(-(-len(ranks) // here) for number, ranks in enumerate(hosts) if number != host)
    return capacity * (1 + far)


class HierarchicalAllToAll:
    """See `AllToAll`.

    hosts: of all ranks, which are numbered as in `group`, and as in `place`. addresses: of the segments of
    this rank's host, in the order of its ranks, of `domain_bytes` each for as many ranks and for
    `relayed_capacity` tokens. capacity: tokens of one rank at once. wire: on the network and in memory.
    spin_s, limit_s: see `SharedAllToAll`.
    """

    def __init__(
        self,
        hosts: Hosts,
        group: ProcessGroup | ProcessGroupGloo,
        addresses: list[int],
        *,
        hidden: int,
        top_k: int,
        capacity: int,
        wire: Wire = Wire.FP32,
        spin_s: float = SPIN_S,
        limit_s: float = 60.0,
    ) -> None:
        rank = group.rank()
        host = next(number for number, ranks in enumerate(hosts) if rank in ranks)
        local = hosts[host].index(rank)
        self._far = GlooAllToAll(group, hidden=hidden, top_k=top_k, wire=wire, limit_s=limit_s)
        self._near = SharedAllToAll(
            local,
            addresses,
            hidden=hidden,
            top_k=top_k,
            capacity=relayed_capacity(hosts, host, capacity),
            wire=wire,
            spin_s=spin_s,
            limit_s=limit_s,
        )
        # By rank: who takes tokens for it from this one, and its number on this host (-1: it is on another).
        self._relays_R, self._locals_R = np.full((2, sum(map(len, hosts))), -1, np.int32)
        for ranks in hosts:
            self._relays_R[list(ranks)] = ranks[local % len(ranks)]
        self._locals_R[list(hosts[host])] = np.arange(len(hosts[host]))
        self._layer, self._capacity = 0, capacity

    def place(self, layer: int, ranks_EC: IntColumn, counts_E: IntColumn) -> None:
        self._far.place(layer, self._relays_R[ranks_EC], counts_E)
        self._near.place(layer, *self._copies_here(ranks_EC, counts_E))

    def dispatch(self, layer: int, hidden_TH: Tensor, gates_TK: Tensor, experts_TK: Tensor) -> None:
        check_capacity(len(hidden_TH), self._capacity)  # here, where it is known whose tokens are too many
        self._layer = layer
        self._far.dispatch(layer, hidden_TH, gates_TK, experts_TK)

    def receive(self) -> SharedReceived:
        relayed = self._far.receive()
        self._near.dispatch(self._layer, relayed.hidden_NH, relayed.gates_NK, relayed.experts_NK)
        return self._near.receive()

    def combine(self, sums_NH: Tensor) -> Tensor:
        return self._far.combine(self._near.combine(sums_NH))

    def take_times(self) -> CommTimes:
        near, far = self._near.take_times(), self._far.take_times()
        return CommTimes(
            wait_s=near.wait_s + far.wait_s,
            copy_s=near.copy_s + far.copy_s,
            num_bytes=near.num_bytes + far.num_bytes,
        )

    def _copies_here(self, ranks_EC: IntColumn, counts_E: IntColumn) -> tuple[IntColumn, IntColumn]:
        """What `place` is told, for this host alone: its own numbers, first in each row."""
        valid_EC = np.arange(ranks_EC.shape[1]) < counts_E[:, None]
        locals_EC = np.where(valid_EC, self._locals_R[ranks_EC], -1).astype(np.int32)
        order_EC = np.argsort(locals_EC < 0, axis=1, kind="stable")
        here_EC = np.take_along_axis(locals_EC, order_EC, axis=1)
        return np.ascontiguousarray(here_EC), (here_EC >= 0).sum(axis=1, dtype=np.int32)
