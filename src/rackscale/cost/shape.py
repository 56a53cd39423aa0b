"""A model as cost formulas count it: weights, multiplications and cache of one layer."""

from collections import Counter
from dataclasses import dataclass
from typing import Self, assert_never

from rackscale.specs import GqaSpec, MlaSpec, ModelSpec


@dataclass(frozen=True, kw_only=True, slots=True)
class Shape:
    """Weights and elements are counts, each of one layer.

    replicated_weights: of attention's projections that every rank of an attention holds. split_weights:
    those that its ranks have between them. kv_elements: that a token takes in the cache; at most kv_split
    ranks can have them between them. decode_flops, prefill_flops: of attention itself, for a query and a key,
    all heads; MLA decodes in its compressed space (DeepSeek-V2, arXiv 2405.04434, weights absorbed).
    windows: how many layers see how many tokens back; None: all.
    """

    hidden: int
    vocab: int
    num_layers: int
    num_moe_layers: int
    replicated_weights: float
    split_weights: float
    kv_elements: float
    kv_split: int
    decode_flops: float
    prefill_flops: float
    windows: tuple[tuple[int, int | None], ...]
    experts: int
    top_k: int
    expert_weights: float
    shared_weights: float
    dense_weights: float
    embedding_weights: float

    @classmethod
    def of(cls, spec: ModelSpec) -> Self:
        """The shape of a model."""
        hidden, moe = spec.hidden, spec.moe
        replicated, split, elements, kv_split, decode, prefill = _attention(spec)
        return cls(
            hidden=hidden,
            vocab=spec.vocab_size,
            num_layers=spec.num_layers,
            num_moe_layers=sum(layer.moe for layer in spec.layers),
            replicated_weights=replicated,
            split_weights=split,
            kv_elements=elements,
            kv_split=kv_split,
            decode_flops=decode,
            prefill_flops=prefill,
            windows=tuple(
                (count, window) for window, count in Counter(layer.window for layer in spec.layers).items()
            ),
            experts=moe.router.num_experts if moe else 1,
            top_k=moe.router.top_k if moe else 1,
            expert_weights=3 * hidden * moe.width if moe else 0,
            shared_weights=3 * hidden * moe.shared_width if moe else 0,
            dense_weights=3 * hidden * spec.dense_width,
            embedding_weights=spec.vocab_size * hidden,
        )

    def kv_bytes_per_token(self, kv_bytes: float) -> float:
        """In all layers, for an element's bytes; windows are not looked at."""
        return self.num_layers * self.kv_elements * kv_bytes


def _attention(spec: ModelSpec) -> tuple[float, float, float, int, float, float]:
    hidden = spec.hidden
    match spec.attention:
        case MlaSpec() as mla:
            heads, latent, rope = mla.num_heads, mla.kv_lora_rank, mla.rope_head_dim
            queries = heads * (mla.nope_head_dim + rope)
            replicated = hidden * (latent + rope)
            split = latent * heads * (mla.nope_head_dim + mla.v_head_dim) + heads * mla.v_head_dim * hidden
            if mla.q_lora_rank is None:
                split += hidden * queries
            else:
                replicated += hidden * mla.q_lora_rank
                split += mla.q_lora_rank * queries
            decode = 2.0 * heads * (2 * latent + rope)
            prefill = 2.0 * heads * (mla.nope_head_dim + rope + mla.v_head_dim)
            return replicated, split, latent + rope, 1, decode, prefill
        case GqaSpec() as gqa:
            width, kv_width = gqa.num_heads * gqa.head_dim, gqa.num_kv_heads * gqa.head_dim
            split = hidden * (2 * width + 2 * kv_width)
            flops = 4.0 * width
            return 0.0, split, 2 * kv_width, gqa.num_kv_heads, flops, flops
        case _:
            assert_never(spec.attention)
