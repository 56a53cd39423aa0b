"""Multi-head latent attention (arXiv 2405.04434) over a paged cache of latents.

Decodes work on the compressed cache: the key's up-projection is absorbed into the query, the value's is
applied after the attention. Chunks of a prefill expand keys and values, which costs less for many queries.
"""

from dataclasses import replace

import torch
from torch import Tensor

from rackscale.runtime.batch import Batch, Chunk
from rackscale.runtime.kernels import Kernels, MlaWeights
from rackscale.runtime.model.chunk_attention import attend
from rackscale.runtime.model.weights import Loader, Rows, columns, ordered, rows
from rackscale.runtime.rope import Rope, halves
from rackscale.specs import MlaSpec, RopeSpec, Span, YarnScaling, share_heads

NORM_EPS = 1e-6  # the families' code has it fixed here, whatever rms_norm_eps is


class Mla:
    """One layer's attention, or the part of it that some of its heads give."""

    def __init__(self, weights: MlaWeights, kernels: Kernels) -> None:
        self.weights, self.kernels = weights, kernels

    def __call__(self, x_TH: Tensor, cache: tuple[Tensor, ...], batch: Batch, rope: Rope) -> Tensor:
        """Attention of every token to its row up to itself, [T, H]; writes the tokens' latents."""
        spec, kernels = self.weights.spec, self.kernels
        first = kernels.linear(x_TH, self.weights.first)
        width = spec.kv_lora_rank + spec.rope_head_dim
        nope_TAN, rope_TAN = self._queries(first[:, :-width])
        latent, key_rope = first[:, -width:].split((spec.kv_lora_rank, spec.rope_head_dim), -1)
        kernels.rotate(rope_TAN, rope, batch.positions)
        kernels.rotate(key_rope.unsqueeze(1), rope, batch.positions)
        latent = kernels.rms_norm(latent, self.weights.latent_norm, self.weights.eps)
        (latents_SW,) = cache
        latents_SW[batch.slots] = torch.cat((latent, key_rope), -1)

        parts = []
        decodes = len(batch.decodes)
        if decodes:
            parts.append(self._decode(nope_TAN[:decodes], rope_TAN[:decodes], latents_SW, batch))
        for chunk in batch.chunks:
            part = slice(chunk.start, chunk.end)
            parts.append(self._chunk(nope_TAN[part], rope_TAN[part], latents_SW, chunk))
        attended = parts[0] if len(parts) == 1 else torch.cat(parts)
        return kernels.linear(attended, self.weights.out)

    def _queries(self, first_TN: Tensor) -> tuple[Tensor, Tensor]:
        """The parts of the queries that are not rotated and that are."""
        weights, spec = self.weights, self.weights.spec
        if weights.query_up is not None:
            assert weights.query_norm is not None, "a query LoRA has a norm"
            normed = self.kernels.rms_norm(first_TN, weights.query_norm, weights.eps)
            first_TN = self.kernels.linear(normed, weights.query_up)
        nope_TAN, rope_TAN = first_TN.unflatten(1, (spec.num_heads, -1)).split(
            (spec.nope_head_dim, spec.rope_head_dim), -1
        )
        return nope_TAN, rope_TAN

    def _decode(self, nope_DAN: Tensor, rope_DAN: Tensor, latents_SW: Tensor, batch: Batch) -> Tensor:
        key_up_ANR, value_up_ARV = self._ups(nope_DAN.dtype)
        absorbed_DAR = torch.bmm(nope_DAN.transpose(0, 1), key_up_ANR).transpose(0, 1)
        query_DAW = torch.cat((absorbed_DAR, rope_DAN), -1)
        latent_DAR = self.kernels.mla_decode(
            query_DAW, latents_SW, batch.decodes, self.weights.spec.kv_lora_rank, self.weights.scale
        )
        value_ADV = torch.bmm(latent_DAR.transpose(0, 1), value_up_ARV)
        return value_ADV.transpose(0, 1).flatten(1)

    def _chunk(self, nope_TAN: Tensor, rope_TAN: Tensor, latents_SW: Tensor, chunk: Chunk) -> Tensor:
        spec = self.weights.spec
        key_up_ANR, value_up_ARV = self._ups(nope_TAN.dtype)
        latent_LR, rope_LN = latents_SW[chunk.context].split((spec.kv_lora_rank, spec.rope_head_dim), -1)
        key_ALN = latent_LR @ key_up_ANR.mT
        key_ALN = torch.cat((key_ALN, rope_LN.expand(spec.num_heads, -1, -1)), -1)
        value_ALV = latent_LR @ value_up_ARV
        query_ATN = torch.cat((nope_TAN, rope_TAN), -1).transpose(0, 1)
        return attend(query_ATN, key_ALN, value_ALV, chunk, scale=self.weights.scale).flatten(1)

    def _ups(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        return self.weights.key_up_ANR.to(dtype), self.weights.value_up_ARV.to(dtype)


def load_mla(loader: Loader, spec: MlaSpec, rope: RopeSpec) -> MlaWeights:
    """Rotated rows are put in halves where the checkpoint has them interleaved."""
    mscale = rope.scaling.softmax_mscale if isinstance(rope.scaling, YarnScaling) else 1.0
    lora = spec.q_lora_rank is not None
    query_order, key_order = (_query_order(spec), _key_order(spec)) if rope.interleaved else (None, None)
    query, key = Rows("attn.q_b" if lora else "attn.q", query_order), Rows("attn.kv_a", key_order)
    key_bias, bias = loader.maybe("attn.kv_a_bias"), None
    if key_bias is not None:
        query_bias = loader.maybe("attn.q_a_bias")
        if query_bias is None:
            query_bias = key_bias.new_zeros(spec.q_lora_rank or len(_query_order(spec)))
        bias = torch.cat((query_bias, ordered(key_bias, key_order)))
    up = loader.matrix("attn.kv_b").view(spec.num_heads, -1, spec.kv_lora_rank)
    return MlaWeights(
        spec=spec,
        eps=NORM_EPS,
        scale=(spec.nope_head_dim + spec.rope_head_dim) ** -0.5 * mscale**2,
        first=loader.fused([Rows("attn.q_a") if lora else query, key], bias),
        query_norm=loader.maybe("attn.q_a_norm"),
        query_up=loader.fused([query]) if lora else None,
        latent_norm=loader.get("attn.kv_a_norm"),
        key_up_ANR=up[:, : spec.nope_head_dim].contiguous(),
        value_up_ARV=up[:, spec.nope_head_dim :].mT.contiguous(),
        out=loader.linear("attn.o"),
    )


def share_mla(weights: MlaWeights, tp: int, member: int) -> MlaWeights:
    """What a member of a team has: its heads' queries, up-projections and output, and all latents."""
    spec = weights.spec
    heads = share_heads(spec, tp, member).queries
    own = heads.scaled(spec.nope_head_dim + spec.rope_head_dim)
    first, query_up = weights.first, weights.query_up
    if query_up is None:
        width = spec.num_heads * (spec.nope_head_dim + spec.rope_head_dim)
        latents = Span(width, width + spec.kv_lora_rank + spec.rope_head_dim)
        first = columns(first, own, latents)
    else:
        query_up = columns(query_up, own)
    return replace(
        weights,
        spec=replace(spec, num_heads=heads.size),
        first=first,
        query_up=query_up,
        key_up_ANR=weights.key_up_ANR[heads.start : heads.end],
        value_up_ARV=weights.value_up_ARV[heads.start : heads.end],
        out=rows(weights.out, heads.scaled(spec.v_head_dim)),
    )


def _query_order(spec: MlaSpec) -> Tensor:
    """Rows of the queries' matrix, with what is rotated in halves."""
    width = spec.nope_head_dim + spec.rope_head_dim
    heads = torch.arange(spec.num_heads * width).view(spec.num_heads, width, 1)
    nope, rope = heads.split((spec.nope_head_dim, spec.rope_head_dim), 1)
    return torch.cat((nope, halves(rope)), 1).flatten()


def _key_order(spec: MlaSpec) -> Tensor:
    """The same of latents and the rotated key."""
    rows = torch.arange(spec.kv_lora_rank + spec.rope_head_dim)[:, None]
    latent, rope = rows.split((spec.kv_lora_rank, spec.rope_head_dim), 0)
    return torch.cat((latent, halves(rope)), 0).flatten()
