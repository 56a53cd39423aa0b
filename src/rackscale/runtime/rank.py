"""One rank: its view of the model, its KV cache, its rows, and the performance of plans on them."""

import time
from pathlib import Path

import numpy as np
import torch

from rackscale.core import IntColumn, RankPlan, RankResult, RequestId, Seat, column
from rackscale.runtime.answer import RankAnswer, StepTimes, TokenLogprobs
from rackscale.runtime.batch import Batch, make_batch, spread
from rackscale.runtime.comm.all_to_all import AllToAll
from rackscale.runtime.comm.team import Team
from rackscale.runtime.kv_cache import KvCache
from rackscale.runtime.model import LoadedModel, Model
from rackscale.runtime.sampling import Sampler
from rackscale.runtime.transfer.transfer import Transfer


class Rank:
    """Rows hold the tokens of running sequences: what a `Seat` brought and what was sampled since.

    tokenizer_path: of the tokenizer that guides are made with. ranks: those that share the experts; None: all
    are here. team: those that share the attention; None: all of it is here. transfer: what carries KV to
    other ranks; None: nothing does.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        cache: KvCache,
        *,
        max_model_len: int,
        tokenizer_path: Path | None = None,
        ranks: AllToAll | None = None,
        team: Team | None = None,
        transfer: Transfer | None = None,
    ) -> None:
        self.device, self.cache, self._ranks, self.transfer = loaded.device, cache, ranks, transfer
        self._team = team
        self.model = Model(loaded, ranks, team)
        max_running = len(cache.table)
        self.sampler = Sampler(
            vocab_size=loaded.spec.vocab_size,
            max_running=max_running,
            tokenizer_path=tokenizer_path,
            device=self.device,
        )
        self._tokens = np.zeros((max_running, max_model_len + 1), dtype=np.int32)

    @torch.inference_mode()
    def step(self, plan: RankPlan) -> RankAnswer:
        """Perform a plan: write the KV of its tokens, and sample where it says so. A rank that shares
        experts performs the others' parts of the step too, also where its own plan is empty."""
        start = time.perf_counter()
        for seat in plan.seats:
            self._seat(seat)
        if len(plan.block_rows):
            self.cache.assign(plan.block_rows, plan.block_indices, plan.block_ids)
        if not len(plan.rows) and self._ranks is None:
            return RankAnswer(result=RankResult(tokens=column(), expert_loads=column()))
        sampling = np.flatnonzero(plan.samples).astype(np.int32)
        logits, num_pushed, lost = self._forward(plan, self._batch(plan, sampling))
        tokens: IntColumn = column()
        logprobs: tuple[TokenLogprobs, ...] = ()
        if len(sampling):
            ends = plan.num_computed + plan.num_new
            tokens, logprobs = self._sample(logits, plan.rows[sampling], ends[sampling])
        loads: IntColumn = self.model.loads_ME.flatten().cpu().numpy()
        return RankAnswer(
            result=RankResult(tokens=tokens, expert_loads=loads, lost_pushes=lost),
            logprobs=logprobs,
            times=self._times(start, num_pushed),
        )

    def _batch(self, plan: RankPlan, sampling: IntColumn) -> Batch:
        last = np.cumsum(plan.num_new, dtype=np.int32) - np.int32(1)
        known = spread(plan.rows, plan.num_computed, plan.num_new)
        return make_batch(
            self.cache,
            self._tokens[known],
            plan.rows,
            plan.num_computed,
            plan.num_new,
            last[sampling],
            self.device,
        )

    def _forward(self, plan: RankPlan, batch: Batch) -> tuple[torch.Tensor, int, tuple[RequestId, ...]]:
        """Logits, how many bytes of KV went to other ranks, and whose did not arrive."""
        if not plan.pushes:
            return self.model(batch, self.cache), 0, ()
        assert self.transfer is not None, "a deployment that moves KV has something to move it with"
        with self.transfer.begin(plan.pushes, self.cache) as move:
            logits = self.model(batch, self.cache, move.after_layer)
        return logits, move.num_bytes, move.lost

    def _times(self, start: float, num_pushed: int) -> StepTimes:
        spent = [link.take_times() for link in (self._ranks, self._team) if link is not None]
        return StepTimes(
            step_s=time.perf_counter() - start,
            wait_s=sum(times.wait_s for times in spent),
            copy_s=sum(times.copy_s for times in spent),
            num_sent_bytes=sum(times.num_bytes for times in spent),
            num_pushed_bytes=num_pushed,
        )

    def _seat(self, seat: Seat) -> None:
        known = seat.request.prompt + seat.emitted
        self._tokens[seat.row, : len(known)] = known
        self.sampler.seat(seat.row, seat.request, seat.emitted)

    def _sample(
        self, logits: torch.Tensor, rows: IntColumn, positions: IntColumn
    ) -> tuple[IntColumn, tuple[TokenLogprobs, ...]]:
        drawn, logprobs = self.sampler.sample(logits, rows, positions)
        tokens: IntColumn = drawn.cpu().numpy()
        self._tokens[rows, positions] = tokens
        return tokens, logprobs
