"""One rank: weights, KV cache, rows, and the performance of plans on them."""

import numpy as np
import torch

from rackscale.checkpoint import Checkpoint
from rackscale.core import IntColumn, RankPlan, RankResult, Seat, column
from rackscale.runtime.answer import RankAnswer, TokenLogprobs
from rackscale.runtime.batch import make_batch
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
        self.model = Model(checkpoint, dtype=dtype, device=self.device, kernels=kernels, progress=progress)
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
        self.cache.assign(plan.block_rows, plan.block_indices, plan.block_ids)
        if not len(plan.rows):
            return RankAnswer(result=RankResult(tokens=column(), expert_loads=column()))
        ends = plan.num_computed + plan.num_new
        sampling = np.flatnonzero(plan.samples)
        batch = make_batch(
            self.cache,
            self._inputs(plan),
            plan.rows,
            plan.num_computed,
            plan.num_new,
            (np.cumsum(plan.num_new) - 1)[sampling],
            self.device,
        )
        logits = self.model(batch, self.cache)
        tokens: IntColumn = column()
        logprobs: tuple[TokenLogprobs, ...] = ()
        if len(sampling):
            tokens, logprobs = self._sample(logits, plan.rows[sampling], ends[sampling])
        return RankAnswer(result=RankResult(tokens=tokens, expert_loads=self._loads()), logprobs=logprobs)

    def _seat(self, seat: Seat) -> None:
        known = seat.request.prompt + seat.emitted
        self._tokens[seat.row, : len(known)] = known
        self.sampler.seat(seat.row, seat.request, seat.emitted)

    def _inputs(self, plan: RankPlan) -> IntColumn:
        row_of = np.repeat(plan.rows, plan.num_new)
        starts = np.cumsum(plan.num_new) - plan.num_new
        positions = np.arange(len(row_of)) + np.repeat(plan.num_computed - starts, plan.num_new)
        inputs: IntColumn = self._tokens[row_of, positions]
        return inputs

    def _sample(
        self, logits: torch.Tensor, rows: IntColumn, positions: IntColumn
    ) -> tuple[IntColumn, tuple[TokenLogprobs, ...]]:
        drawn, logprobs = self.sampler.sample(logits, rows, positions)
        tokens: IntColumn = drawn.cpu().numpy()
        self._tokens[rows, positions] = tokens
        return tokens, logprobs

    def _loads(self) -> IntColumn:
        """Tokens by MoE layer and expert, flattened."""
        moes = self.model.moes
        if not moes:
            return column()
        num_experts = moes[0].spec.router.num_experts
        chosen = torch.stack([moe.chosen_TK for moe in moes]).flatten(1).cpu().numpy()
        flat = chosen + np.arange(len(moes))[:, None] * num_experts
        loads: IntColumn = np.bincount(flat.ravel(), minlength=len(moes) * num_experts).astype(np.int32)
        return loads
