"""Weights of one layer, laid out once at load. Matrices are input-major ([in, out]), so that a product adds
rows of the weight and needs no sum across lanes.

Axes as in interface.py; M the columns of a linear layer.
"""

from dataclasses import dataclass

from torch import Tensor

from rackscale.specs import Activation, GqaSpec, MlaSpec, MoeSpec


@dataclass(frozen=True, slots=True)
class Linear:
    """weight [in, out], in the compute dtype or, where `Kernels.keeps_bf16`, in bf16; bias in the compute
    dtype, or None."""

    weight: Tensor
    bias: Tensor | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class MlaWeights:
    """first gives queries (or, with a query LoRA, what query_up makes them of), latents and rotated keys.
    key_up [A, nope, R] takes queries to the latents' space, value_up [A, R, V] takes latents to values.
    eps: of the two norms."""

    spec: MlaSpec
    scale: float
    eps: float
    first: Linear
    query_norm: Tensor | None
    query_up: Linear | None
    latent_norm: Tensor
    key_up_ANR: Tensor
    value_up_ARV: Tensor
    out: Linear


@dataclass(frozen=True, kw_only=True, slots=True)
class GqaWeights:
    """first gives queries, keys and values. window: how many of the last tokens are seen, or None for all.
    eps: of the norms of queries and keys."""

    spec: GqaSpec
    scale: float
    eps: float
    window: int | None
    first: Linear
    query_norm: Tensor | None
    key_norm: Tensor | None
    sinks_A: Tensor | None
    out: Linear


@dataclass(frozen=True, kw_only=True, slots=True)
class MlpWeights:
    """gate_up: gate first."""

    gate_up: Linear
    down: Linear


@dataclass(frozen=True, kw_only=True, slots=True)
class ExpertWeights:
    """The routed experts: gate_up [E, hidden, 2 * width], gate first; down [E, width, hidden]; biases
    [E, 2 * width] and [E, hidden], or None. In the checkpoint's own dtype: widening bf16 to fp32 loses
    nothing.
    """

    gate_up: Tensor
    down: Tensor
    gate_up_bias: Tensor | None
    down_bias: Tensor | None
    moe: MoeSpec

    @property
    def clamped(self) -> bool:
        return self.moe.activation == Activation.SWIGLU_CLAMPED


@dataclass(frozen=True, kw_only=True, slots=True)
class MoeWeights:
    """The router is in fp32."""

    spec: MoeSpec
    router: Linear
    correction_E: Tensor | None
    experts: ExpertWeights
    shared: MlpWeights | None


@dataclass(frozen=True, kw_only=True, slots=True)
class LayerWeights:
    """Attention and a feed-forward part, each behind a norm."""

    attention_norm: Tensor
    attention: MlaWeights | GqaWeights
    ffn_norm: Tensor
    ffn: MlpWeights | MoeWeights


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelWeights:
    """embed [V, H], in the dtype that matrices are kept in. eps: of the norms of layers and the last one."""

    eps: float
    embed: Tensor
    layers: tuple[LayerWeights, ...]
    final_norm: Tensor
    head: Linear
