"""One rank: weights, KV cache, rows, and the performance of plans on them."""

import numpy as np
import torch

from rackscale.checkpoint import Checkpoint
from rackscale.core import IntColumn, RankPlan, RankResult, Seat, column
from rackscale.runtime.answer import RankAnswer, TokenLogprobs
from rackscale.runtime.batch import make_batch, spread
from rackscale.runtime.kernels import Kernels
from rackscale.runtime.kv_cache import KvCache
from rackscale.runtime.model import Model, Progress
from rackscale.runtime.sampling import Sampler


class Rank:
    """Rows hold the tokens of running sequences: what a `Seat` brought and what was sampled since.
    progress: told how many layers are loaded, of how many."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        *,
        num_blocks: int,
        block_size: int,
        max_running: int,
        max_model_len: int,
        dtype: torch.dtype,
        kernels: Kernels,
        device: str = "cpu",
        progress: Progress = lambda _done, _total: None,
    ) -> None:
        self.device = torch.device(device)
        self.model = Model(
            checkpoint,
            dtype=dtype,
            device=self.device,
            kernels=kernels,
            max_positions=max_model_len,
            progress=progress,
        )
        self.cache = KvCache(
            checkpoint.spec,
            num_blocks=num_blocks,
            block_size=block_size,
            max_running=max_running,
            max_model_len=max_model_len,
            dtype=dtype,
            device=self.device,
        )
        tokenizer = checkpoint.tokenizer
        self.sampler = Sampler(
            vocab_size=checkpoint.spec.vocab_size,
            max_running=max_running,
            tokenizer_path=None if tokenizer is None else tokenizer.path,
            device=self.device,
        )
        self._tokens = np.zeros((max_running, max_model_len + 1), dtype=np.int32)

    @torch.inference_mode()
    def step(self, plan: RankPlan) -> RankAnswer:
        """Perform a plan: write the KV of its tokens, and sample where it says so."""
        for seat in plan.seats:
            self._seat(seat)
        if len(plan.block_rows):
            self.cache.assign(plan.block_rows, plan.block_indices, plan.block_ids)
        if not len(plan.rows):
            return RankAnswer(result=RankResult(tokens=column(), expert_loads=column()))
        ends = plan.num_computed + plan.num_new
        sampling = np.flatnonzero(plan.samples)
        last = np.cumsum(plan.num_new, dtype=np.int32) - np.int32(1)
        known = spread(plan.rows, plan.num_computed, plan.num_new)
        batch = make_batch(
            self.cache,
            self._tokens[known],
            plan.rows,
            plan.num_computed,
            plan.num_new,
            last[sampling],
            self.device,
        )
        logits = self.model(batch, self.cache)
        tokens: IntColumn = column()
        logprobs: tuple[TokenLogprobs, ...] = ()
        if len(sampling):
            tokens, logprobs = self._sample(logits, plan.rows[sampling], ends[sampling])
        loads: IntColumn = self.model.loads_ME.flatten().cpu().numpy()
        result = RankResult(tokens=tokens, expert_loads=loads)
        return RankAnswer(result=result, logprobs=logprobs)

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
