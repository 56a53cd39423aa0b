"""What a decoder-only language model is, whatever its family's config.json calls it.

Widths are in elements. Every layer is attention then a feed-forward part, each behind an RMSNorm
and added to the residual. `checkpoint` reads a `ModelSpec` out of a config.json; the runtime builds
from it, and cost formulas count from it.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import assert_never


@dataclass(frozen=True, kw_only=True, slots=True)
class LinearScaling:
    """Positions divided by `factor`."""

    factor: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Llama3Scaling:
    """Llama 3.1's scaling: low frequencies divided by `factor`, high ones kept, a ramp between."""

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_max_positions: int


@dataclass(frozen=True, kw_only=True, slots=True)
class YarnScaling:
    """YaRN (arXiv 2309.00071).

    attention_factor multiplies cos and sin. softmax_mscale: DeepSeek multiplies its softmax scale
    by this squared (1.0 elsewhere). truncate: whether the ramp's bounds are whole numbers.
    """

    factor: float
    beta_fast: float
    beta_slow: float
    original_max_positions: int
    attention_factor: float
    softmax_mscale: float = 1.0
    truncate: bool = True


RopeScaling = LinearScaling | Llama3Scaling | YarnScaling


@dataclass(frozen=True, kw_only=True, slots=True)
class RopeSpec:
    """Rotary embedding of `dim` elements of a head. interleaved: pairs are neighbours
    (DeepSeek), not halves."""

    theta: float
    dim: int
    interleaved: bool = False
    scaling: RopeScaling | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class MlaSpec:
    """Multi-head latent attention (arXiv 2405.04434): the cache holds kv_lora_rank + rope_head_dim
    elements per token and layer, whatever the heads. q_lora_rank None: one query projection."""

    num_heads: int
    q_lora_rank: int | None
    kv_lora_rank: int
    nope_head_dim: int
    rope_head_dim: int
    v_head_dim: int
    bias: bool = False  # on q_a, kv_a and o


class QkNorm(StrEnum):
    """Over what queries and keys are normalised before they are rotated."""

    NONE = "none"
    HEAD = "head"  # each head (Qwen3)
    PROJECTION = "projection"  # all heads together (OLMoE)


@dataclass(frozen=True, kw_only=True, slots=True)
class GqaSpec:
    """Grouped-query attention. head_dim is a fact of its own: num_heads * head_dim need not be the
    hidden width."""

    num_heads: int
    num_kv_heads: int
    head_dim: int
    qk_norm: QkNorm = QkNorm.NONE
    qkv_bias: bool = False
    out_bias: bool = False
    sinks: bool = False  # one more logit a head in the softmax, without a value (gpt-oss)
    clip_qkv: float | None = None  # q, k, v clamped to +- this (OLMoE)


AttentionSpec = MlaSpec | GqaSpec


class Activation(StrEnum):
    """What a feed-forward part does between its projections.

    swiglu: silu(gate) * up. swiglu_clamped (gpt-oss): gate * sigmoid(alpha * gate) * (up + 1), with gate
    at most the limit and up within it.
    """

    SWIGLU = "swiglu"
    SWIGLU_CLAMPED = "swiglu_clamped"


class Scoring(StrEnum):
    """How router logits become scores."""

    SOFTMAX = "softmax"  # over all experts, then the top k
    TOPK_SOFTMAX = "topk_softmax"  # the top k logits, then a softmax over those (gpt-oss)
    SIGMOID = "sigmoid"  # each alone (DeepSeek-V3)


@dataclass(frozen=True, kw_only=True, slots=True)
class RouterSpec:
    """Who computes a token.

    correction_bias: a bias per expert chooses the experts and does not weight them.
    num_groups, topk_groups: only experts of the best groups may be chosen; a group's score is the
    sum of its two best biased scores. renormalise: the chosen weights are divided by their sum.
    scale multiplies them at the end.
    """

    num_experts: int
    top_k: int
    scoring: Scoring
    correction_bias: bool = False
    bias: bool = False
    num_groups: int = 1
    topk_groups: int = 1
    renormalise: bool = True
    scale: float = 1.0


@dataclass(frozen=True, kw_only=True, slots=True)
class MoeSpec:
    """Routed experts of `width`, and a shared expert of `shared_width` (0: none) for all tokens."""

    router: RouterSpec
    width: int
    shared_width: int = 0
    activation: Activation = Activation.SWIGLU
    expert_bias: bool = False
    swiglu_alpha: float = 1.702
    swiglu_limit: float = 7.0


@dataclass(frozen=True, kw_only=True, slots=True)
class LayerSpec:
    """What differs between layers. window: how many tokens back a token sees, itself included."""

    moe: bool
    window: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelSpec:
    """A decoder-only model. dense_width: the feed-forward width of layers without experts.
    family: the architecture's name in this project's tables (`deepseek_v3`, `qwen3_moe`, ...).
    dtype: what the checkpoint says its unquantised weights are (`bfloat16`, `float32`, ...)."""

    family: str
    vocab_size: int
    hidden: int
    attention: AttentionSpec
    rope: RopeSpec
    layers: tuple[LayerSpec, ...]
    dense_width: int
    moe: MoeSpec | None
    norm_eps: float
    max_positions: int
    tied_embeddings: bool
    mlp_bias: bool = False
    dtype: str = "bfloat16"

    @property
    def num_layers(self) -> int:
        return len(self.layers)

    @property
    def kv_elements_per_token(self) -> int:
        """Elements that one token takes in the cache, all layers together."""
        match self.attention:
            case MlaSpec(kv_lora_rank=rank, rope_head_dim=rope):
                return self.num_layers * (rank + rope)
            case GqaSpec(num_kv_heads=heads, head_dim=dim):
                return self.num_layers * 2 * heads * dim
            case _:
                assert_never(self.attention)
