"""All-to-all over a process group: gloo between hosts, or NCCL between GPUs, where the same calls do."""

from dataclasses import dataclass
from time import perf_counter

import torch
from torch import Tensor
from torch.distributed import ProcessGroup, ProcessGroupGloo

from rackscale.core import IntColumn
from rackscale.runtime.comm.all_to_all import CommTimes
from rackscale.runtime.comm.exchange import Exchange, Pending
from rackscale.runtime.comm.routes import Copies, Routes, routes
from rackscale.runtime.comm.wire import Wire
from rackscale.runtime.comm.wire_torch import decode_rows, encode_rows, row_bytes

CPU = torch.device("cpu")


@dataclass(kw_only=True, slots=True)
class NetworkReceived:
    """See `Received`."""

    hidden_NH: Tensor
    experts_NK: Tensor
    gates_NK: Tensor

    @property
    def count(self) -> int:
        return len(self.hidden_NH)


@dataclass(kw_only=True, slots=True)
class Round:
    """What is under way between `dispatch` and `combine`. sent, to_R: without the tokens that stay (`own`).
    from_R: how many come from each rank; num_before: how many of these precede the own ones."""

    num_tokens: int
    own: Routes
    own_hidden_NH: Tensor
    sent: Routes
    to_R: Tensor
    from_R: Tensor
    num_before: int
    tokens: Pending


class GlooAllToAll:
    """See `AllToAll`. All ranks of `group` take part, and their numbers there are those of `place`.

    device: where the group takes tensors from. wire, limit_s: see `SharedAllToAll`.
    """

    def __init__(
        self,
        group: ProcessGroup | ProcessGroupGloo,
        *,
        hidden: int,
        top_k: int,
        wire: Wire = Wire.FP32,
        device: torch.device = CPU,
        limit_s: float = 60.0,
    ) -> None:
        self._exchange = Exchange(group, device, limit_s)
        self.rank, self.num_ranks = self._exchange.rank, self._exchange.num_ranks
        self._hidden, self._top_k, self._wire, self._device = hidden, top_k, wire, device
        self._row_bytes = row_bytes(wire, hidden)
        self._placed: dict[int, Copies] = {}
        self._round: Round | None = None

    def place(self, layer: int, ranks_EC: IntColumn, counts_E: IntColumn) -> None:
        self._placed[layer] = Copies(ranks_EC, counts_E, self.num_ranks, self._device)

    def dispatch(self, layer: int, hidden_TH: Tensor, gates_TK: Tensor, experts_TK: Tensor) -> None:
        start_s = perf_counter()
        hidden_TH, gates_TK, experts_TK = hidden_TH.float(), gates_TK.float(), experts_TK.long()
        targets_TK = self._placed[layer].targets(experts_TK, self.rank)
        all_routes = routes(targets_TK, experts_TK, gates_TK, self.num_ranks)
        stays_N = all_routes.ranks_N == self.rank
        own, sent = (Routes(*(part[chosen] for part in all_routes)) for chosen in (stays_N, ~stays_N))
        packets_NB = self._pack(hidden_TH, sent)
        to_R = torch.bincount(sent.ranks_N, minlength=self.num_ranks).cpu()
        self._exchange.copied(perf_counter() - start_s)
        from_R = self._exchange.counts(to_R)
        self._round = Round(
            num_tokens=len(hidden_TH),
            own=own,
            own_hidden_NH=hidden_TH[own.tokens_N],
            sent=sent,
            to_R=to_R,
            from_R=from_R,
            num_before=int(from_R[: self.rank].sum()),
            tokens=self._exchange.rows(packets_NB, to_R, from_R),
        )

    def receive(self) -> NetworkReceived:
        assert self._round is not None, "dispatch comes first"
        packets_NB = self._finish(self._round.tokens)
        start_s = perf_counter()
        received = self._unpack(packets_NB, self._round)
        self._exchange.copied(perf_counter() - start_s)
        return received

    def combine(self, sums_NH: Tensor) -> Tensor:
        assert self._round is not None, "dispatch comes first"
        round_, self._round = self._round, None
        start_s = perf_counter()
        num_own = len(round_.own.tokens_N)
        before, own, after = sums_NH.float().split(
            [round_.num_before, num_own, len(sums_NH) - round_.num_before - num_own]
        )
        rows_NB = self._rows(len(before) + len(after), self._row_bytes)
        encode_rows(self._wire, before, rows_NB[: len(before)])
        encode_rows(self._wire, after, rows_NB[len(before) :])
        pending = self._exchange.rows(rows_NB, round_.from_R, round_.to_R)
        self._exchange.copied(perf_counter() - start_s)
        came_NB = self._finish(pending)
        start_s = perf_counter()
        sums_TH = self._add_up(round_, own, decode_rows(self._wire, came_NB, self._hidden))
        self._exchange.copied(perf_counter() - start_s)
        return sums_TH

    def take_times(self) -> CommTimes:
        return self._exchange.take_times()

    def _add_up(self, round_: Round, own_NH: Tensor, came_NH: Tensor) -> Tensor:
        """By rank, so that the sums have the same bits in every run."""
        sums_TH = own_NH.new_zeros(round_.num_tokens, self._hidden)
        parts = came_NH.split(round_.to_R.tolist())
        tokens = round_.sent.tokens_N.split(round_.to_R.tolist())
        for rank in range(self.num_ranks):
            if rank == self.rank:
                sums_TH[round_.own.tokens_N] += own_NH
            else:
                sums_TH[tokens[rank]] += parts[rank]
        return sums_TH

    def _finish(self, pending: Pending) -> Tensor:
        start_s = perf_counter()
        came_NB = pending.finish()
        self._exchange.waited(perf_counter() - start_s)
        return came_NB

    def _rows(self, count: int, num_bytes: int) -> Tensor:
        return torch.empty(count, num_bytes, dtype=torch.uint8, device=self._device)

    def _pack(self, hidden_TH: Tensor, sent: Routes) -> Tensor:
        """A row, then its experts and gates."""
        packets_NB = self._rows(len(sent.tokens_N), self._row_bytes + 8 * self._top_k)
        encode_rows(self._wire, hidden_TH[sent.tokens_N], packets_NB)
        experts_NK, gates_NK = self._choices(packets_NB)
        experts_NK.copy_(sent.experts_NK)
        gates_NK.copy_(sent.gates_NK)
        return packets_NB

    def _unpack(self, packets_NB: Tensor, round_: Round) -> NetworkReceived:
        experts_NK, gates_NK = self._choices(packets_NB)
        hidden_NH = decode_rows(self._wire, packets_NB, self._hidden)
        at = round_.num_before
        return NetworkReceived(
            hidden_NH=torch.cat([hidden_NH[:at], round_.own_hidden_NH, hidden_NH[at:]]),
            experts_NK=torch.cat([experts_NK[:at], round_.own.experts_NK, experts_NK[at:]]),
            gates_NK=torch.cat([gates_NK[:at], round_.own.gates_NK, gates_NK[at:]]),
        )

    def _choices(self, packets_NB: Tensor) -> tuple[Tensor, Tensor]:
        choices_NB = packets_NB[:, self._row_bytes :]
        experts, gates = choices_NB.split(4 * self._top_k, dim=1)
        return experts.view(torch.int32), gates.view(torch.float32)
