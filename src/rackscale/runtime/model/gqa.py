"""Grouped-query attention over paged keys and values."""

import torch
import torch.nn.functional as F
from torch import Tensor

from rackscale.runtime.batch import Batch, Chunk
from rackscale.runtime.kernels import Kernels
from rackscale.runtime.kernels.reference import softmax_with_sinks
from rackscale.runtime.model.mla import hidden_from
from rackscale.runtime.model.rope import rotate
from rackscale.runtime.model.weights import LayerWeights
from rackscale.specs import GqaSpec, ModelSpec, QkNorm


class Gqa:
    """One layer's attention. window: how many of the last tokens are seen, or None for all."""

    def __init__(
        self, model: ModelSpec, spec: GqaSpec, window: int | None, weights: LayerWeights, kernels: Kernels
    ) -> None:
        self.spec, self.window, self.kernels, self.eps = spec, window, kernels, model.norm_eps
        self.scale = spec.head_dim**-0.5
        self.qkv = weights.fused(("attn.q", "attn.k", "attn.v"))
        self.qkv_bias = weights.fused_bias(("attn.q", "attn.k", "attn.v"))
        self.q_norm, self.k_norm = weights.maybe("attn.q_norm"), weights.maybe("attn.k_norm")
        self.sinks_A = weights.maybe("attn.sinks")
        self.out, self.out_bias = weights.get("attn.o"), weights.maybe("attn.o_bias")

    def __call__(self, x_TH: Tensor, cache: tuple[Tensor, ...], batch: Batch, cos: Tensor, sin: Tensor) -> Tensor:
        """Attention of every token to its row up to itself, [T, H]; writes the tokens' keys and values."""
        spec = self.spec
        query, key, value = self._project(x_TH)
        keys_SGN, values_SGN = cache
        keys_SGN[batch.slots] = rotate(key, cos, sin)
        values_SGN[batch.slots] = value
        query = rotate(query, cos, sin)
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
        return F.linear(attended, self.out, self.out_bias)

    def _project(self, x_TH: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        spec = self.spec
        qkv = F.linear(x_TH, self.qkv, self.qkv_bias)
        heads, key_heads, dim = spec.num_heads, spec.num_kv_heads, spec.head_dim
        query, key, value = qkv.split((heads * dim, key_heads * dim, key_heads * dim), -1)
        if spec.qk_norm == QkNorm.PROJECTION:
            query = F.rms_norm(query, query.shape[-1:], self.q_norm, self.eps)
            key = F.rms_norm(key, key.shape[-1:], self.k_norm, self.eps)
        if spec.clip_qkv is not None:
            query, key, value = (part.clamp(-spec.clip_qkv, spec.clip_qkv) for part in (query, key, value))
        query, key, value = (part.unflatten(-1, (-1, dim)) for part in (query, key, value))
        if spec.qk_norm == QkNorm.HEAD:
            query = F.rms_norm(query, (dim,), self.q_norm, self.eps)
            key = F.rms_norm(key, (dim,), self.k_norm, self.eps)
        return query, key, value

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
