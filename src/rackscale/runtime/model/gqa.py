"""Grouped-query attention over paged keys and values."""

import torch
from torch import Tensor

from rackscale.runtime.batch import Batch
from rackscale.runtime.kernels import GqaWeights, Kernels
from rackscale.runtime.model.chunk_attention import attend
from rackscale.runtime.model.weights import Loader
from rackscale.runtime.rope import Rope
from rackscale.specs import GqaSpec, QkNorm


class Gqa:
    """One layer's attention."""

    def __init__(self, weights: GqaWeights, kernels: Kernels) -> None:
        self.weights, self.kernels = weights, kernels

    def __call__(self, x_TH: Tensor, cache: tuple[Tensor, ...], batch: Batch, rope: Rope) -> Tensor:
        """Attention of every token to its row up to itself, [T, H]; writes the tokens' keys and values."""
        weights, kernels = self.weights, self.kernels
        query, key, value = self._project(x_TH)
        keys_SGN, values_SGN = cache
        for heads in (query, key):
            kernels.rotate(heads, rope, batch.positions)
        keys_SGN[batch.slots] = key
        values_SGN[batch.slots] = value
        scale, window, sinks_A = weights.scale, weights.window, weights.sinks_A
        parts = []
        decodes = len(batch.decodes)
        if decodes:
            decoded = kernels.gqa_decode(
                query[:decodes], keys_SGN, values_SGN, batch.decodes, scale, window, sinks_A
            )
            parts.append(decoded.flatten(1))
        for chunk in batch.chunks:
            attended = attend(
                query[chunk.start : chunk.end].transpose(0, 1),
                keys_SGN[chunk.context].transpose(0, 1),
                values_SGN[chunk.context].transpose(0, 1),
                chunk,
                scale=scale,
                window=window,
                sinks_A=sinks_A,
            )
            parts.append(attended.flatten(1))
        attended = parts[0] if len(parts) == 1 else torch.cat(parts)
        return kernels.linear(attended, weights.out)

    def _project(self, x_TH: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        weights, spec = self.weights, self.weights.spec
        qkv = self.kernels.linear(x_TH, weights.first)
        heads, key_heads, dim = spec.num_heads, spec.num_kv_heads, spec.head_dim
        query, key, value = qkv.split((heads * dim, key_heads * dim, key_heads * dim), -1)
        if spec.qk_norm != QkNorm.NONE:
            query, key = self._norm(query, weights.query_norm), self._norm(key, weights.key_norm)
        if spec.clip_qkv is not None:
            query, key, value = (part.clamp(-spec.clip_qkv, spec.clip_qkv) for part in (query, key, value))
        query, key, value = (part.unflatten(-1, (-1, dim)) for part in (query, key, value))
        return query, key, value

    def _norm(self, x_TN: Tensor, weight: Tensor | None) -> Tensor:
        """Over all of a row, or over each head of it: as wide as the weight is."""
        assert weight is not None, "a model with norms of queries and keys has their weights"
        if self.weights.spec.qk_norm == QkNorm.PROJECTION:
            return self.kernels.rms_norm(x_TN, weight, self.weights.eps)
        heads = x_TN.reshape(-1, len(weight))
        return self.kernels.rms_norm(heads, weight, self.weights.eps).view(x_TN.shape)


def load_gqa(loader: Loader, spec: GqaSpec, window: int | None, eps: float) -> GqaWeights:
    """window: of the layer. eps: of the model's norms."""
    return GqaWeights(
        spec=spec,
        scale=spec.head_dim**-0.5,
        eps=eps,
        window=window,
        first=loader.linear("attn.q", "attn.k", "attn.v"),
        query_norm=loader.maybe("attn.q_norm"),
        key_norm=loader.maybe("attn.k_norm"),
        sinks_A=loader.maybe("attn.sinks"),
        out=loader.linear("attn.o"),
    )
