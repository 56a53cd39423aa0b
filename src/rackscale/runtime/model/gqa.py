"""Grouped-query attention over paged keys and values."""

from dataclasses import replace

import torch
from torch import Tensor

from rackscale.runtime.batch import Batch
from rackscale.runtime.comm.team import Team
from rackscale.runtime.kernels import GqaWeights, Kernels
from rackscale.runtime.model.chunk_attention import attend
from rackscale.runtime.model.weights import Loader, columns, rows
from rackscale.runtime.rope import Rope
from rackscale.specs import GqaSpec, QkNorm, Span, share_heads


class Gqa:
    """One layer's attention, or the part of it that some of its heads give. team: who has the others."""

    def __init__(self, weights: GqaWeights, kernels: Kernels, team: Team | None = None) -> None:
        self.weights, self.kernels, self.team = weights, kernels, team

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
        if spec.qk_norm == QkNorm.PROJECTION and self.team is not None:
            query, key = self._norm_over_team(self.team, query, key)
        elif spec.qk_norm != QkNorm.NONE:
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

    def _norm_over_team(self, team: Team, query_TN: Tensor, key_TN: Tensor) -> tuple[Tensor, Tensor]:
        """Over the heads of all members. Each has as many, so the mean of their means is the whole's."""
        means_TP = torch.stack([part.float().square().mean(-1) for part in (query_TN, key_TN)], -1)
        factors_TP = torch.rsqrt(team.all_reduce(means_TP) / team.size + self.weights.eps)
        query_norm, key_norm = self.weights.query_norm, self.weights.key_norm
        assert query_norm is not None, "a model with norms of queries and keys has their weights"
        assert key_norm is not None, "it has both"
        query = (query_TN.float() * factors_TP[:, :1]).to(query_TN.dtype) * query_norm
        key = (key_TN.float() * factors_TP[:, 1:]).to(key_TN.dtype) * key_norm
        return query, key


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


def share_gqa(weights: GqaWeights, tp: int, member: int) -> GqaWeights:
    """What a member of a team has: its heads of queries, keys and values, and their part of the output."""
    spec = weights.spec
    share = share_heads(spec, tp, member)
    queries, keys = share.queries.scaled(spec.head_dim), share.cached.scaled(spec.head_dim)
    key_start = spec.num_heads * spec.head_dim
    value_start = key_start + spec.num_kv_heads * spec.head_dim
    query_norm, key_norm, sinks_A = weights.query_norm, weights.key_norm, weights.sinks_A
    if spec.qk_norm == QkNorm.PROJECTION:
        query_norm, key_norm = _part(query_norm, queries), _part(key_norm, keys)
    return replace(
        weights,
        spec=replace(spec, num_heads=share.queries.size, num_kv_heads=share.cached.size),
        first=columns(weights.first, queries, keys.moved(key_start), keys.moved(value_start)),
        query_norm=query_norm,
        key_norm=key_norm,
        sinks_A=_part(sinks_A, share.queries),
        out=rows(weights.out, queries),
    )


def _part(weight: Tensor | None, span: Span) -> Tensor | None:
    return None if weight is None else weight[span.start : span.end]
