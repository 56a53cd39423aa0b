"""Grouped-query attention over paged keys and values."""

import torch
from torch import Tensor

from rackscale.runtime.batch import Batch, Chunk
from rackscale.runtime.kernels import Kernels
from rackscale.runtime.kernels.reference import softmax_with_sinks
from rackscale.runtime.model.mla import hidden_from
from rackscale.runtime.model.weights import LayerWeights
from rackscale.runtime.rope import Rope
from rackscale.specs import GqaSpec, ModelSpec, QkNorm


class Gqa:
    """One layer's attention. window: how many of the last tokens are seen, or None for all."""

    def __init__(
        self, model: ModelSpec, spec: GqaSpec, window: int | None, weights: LayerWeights, kernels: Kernels
    ) -> None:
        self.spec, self.window, self.kernels, self.eps = spec, window, kernels, model.norm_eps
        self.scale = spec.head_dim**-0.5
        self.qkv = weights.linear("attn.q", "attn.k", "attn.v")
        self.q_norm, self.k_norm = weights.maybe("attn.q_norm"), weights.maybe("attn.k_norm")
        self.sinks_A = weights.maybe("attn.sinks")
        self.out = weights.linear("attn.o")

    def __call__(self, x_TH: Tensor, cache: tuple[Tensor, ...], batch: Batch, rope: Rope) -> Tensor:
        """Attention of every token to its row up to itself, [T, H]; writes the tokens' keys and values."""
        spec = self.spec
        query, key, value = self._project(x_TH)
        keys_SGN, values_SGN = cache
        for heads in (query, key):
            self.kernels.rotate(heads, rope, batch.positions)
        keys_SGN[batch.slots] = key
        values_SGN[batch.slots] = value
        parts = []
        decodes = len(batch.decodes)
        if decodes:
            decoded = self.kernels.gqa_decode(
                query[:decodes], keys_SGN, values_SGN, batch.decodes, self.scale, self.window, self.sinks_A
            )
            parts.append(decoded.flatten(1))
        for chunk in batch.chunks:
            attended = self._chunk(query[chunk.start : chunk.end], keys_SGN, values_SGN, chunk)
            parts.append(attended.reshape(-1, spec.num_heads * spec.head_dim))
        attended = parts[0] if len(parts) == 1 else torch.cat(parts)
        return self.kernels.linear(attended, self.out.weight, self.out.bias)

    def _project(self, x_TH: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        spec = self.spec
        qkv = self.kernels.linear(x_TH, self.qkv.weight, self.qkv.bias)
        heads, key_heads, dim = spec.num_heads, spec.num_kv_heads, spec.head_dim
        query, key, value = qkv.split((heads * dim, key_heads * dim, key_heads * dim), -1)
        if spec.qk_norm == QkNorm.PROJECTION:
            query, key = self._norm(query, self.q_norm), self._norm(key, self.k_norm)
        if spec.clip_qkv is not None:
            query, key, value = (part.clamp(-spec.clip_qkv, spec.clip_qkv) for part in (query, key, value))
        query, key, value = (part.unflatten(-1, (-1, dim)) for part in (query, key, value))
        if spec.qk_norm == QkNorm.HEAD:
            query, key = self._norm(query, self.q_norm), self._norm(key, self.k_norm)
        return query, key, value

    def _norm(self, x: Tensor, weight: Tensor | None) -> Tensor:
        """Over the last axis, whatever is in front of it."""
        assert weight is not None, "a model with norms of queries and keys has their weights"
        if x.ndim == 2:
            return self.kernels.rms_norm(x, weight, self.eps)
        flat = x.reshape(-1, x.shape[-1])
        return self.kernels.rms_norm(flat, weight, self.eps).view(x.shape)

    def _chunk(self, query_TAN: Tensor, keys_SGN: Tensor, values_SGN: Tensor, chunk: Chunk) -> Tensor:
        spec = self.spec
        query_TGAN = query_TAN.unflatten(1, (spec.num_kv_heads, -1))
        scores = torch.einsum("tgan,lgn->gatl", query_TGAN, keys_SGN[chunk.context]) * self.scale
        scores = scores.masked_fill(hidden_from(chunk, self.window, scores.device), -torch.inf)
        if self.sinks_A is None:
            weights = scores.softmax(-1)
        else:
            heads_last = scores.permute(2, 0, 1, 3).flatten(1, 2)  # [T, A, L], as the sinks are by head
            weights = softmax_with_sinks(heads_last, self.sinks_A)
            weights = weights.unflatten(1, (spec.num_kv_heads, -1)).permute(1, 2, 0, 3)
        return torch.einsum("gatl,lgn->tgan", weights, values_SGN[chunk.context])
