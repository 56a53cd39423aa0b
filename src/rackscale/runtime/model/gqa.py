"""Grouped-query attention over paged keys and values."""

import torch
from torch import Tensor

from rackscale.runtime.batch import Batch
from rackscale.runtime.kernels import Kernels
from rackscale.runtime.model.chunk_attention import attend
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
            attended = attend(
                query[chunk.start : chunk.end],
                keys_SGN[chunk.context],
                values_SGN[chunk.context],
                chunk,
                scale=self.scale,
                window=self.window,
                sinks_A=self.sinks_A,
            )
            parts.append(attended.flatten(1))
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
