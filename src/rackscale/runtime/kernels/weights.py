"""Weights of one layer, laid out once at load. Matrices are input-major ([in, out]), so that a product adds
rows of the weight and needs no sum across lanes.

Axes as in interface.py; M the columns of a linear layer.
"""

from dataclasses import dataclass

from torch import Tensor

from rackscale.runtime.kernels.packing import PackedMatrix
from rackscale.specs import Activation, GqaSpec, MlaSpec, MoeSpec


@dataclass(frozen=True, slots=True)
class Linear:
    """weight [in, out], in the compute dtype or, where `Kernels.keeps_bf16`, in bf16; or packed, where
    `Kernels.packs`. bias in the compute dtype, or None."""

    weight: Tensor | PackedMatrix
    bias: Tensor | None = None

    @property
    def num_outputs(self) -> int:
        return self.weight.columns if isinstance(self.weight, PackedMatrix) else self.weight.shape[1]

    @property
    def plain(self) -> Tensor:
        """The weight, of a layer that is not packed."""
        assert isinstance(self.weight, Tensor), "only kernels that pack get packed weights"
        return self.weight


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
    """gate_up: gate first; or both are packed, gate and up in turns, without biases."""

    gate_up: Linear
    down: Linear

    @property
    def is_packed(self) -> bool:
        return isinstance(self.gate_up.weight, PackedMatrix)


@dataclass(frozen=True, kw_only=True, slots=True)
class ExpertWeights:
    """The routed experts: gate_up [E, hidden, 2 * width], gate first; down [E, width, hidden]; biases
    [E, 2 * width] and [E, hidden], or None. In the checkpoint's own dtype: widening bf16 to fp32 loses
    nothing. Or both are packed, gate and up in turns.
    """

    gate_up: Tensor | PackedMatrix
    down: Tensor | PackedMatrix
    gate_up_bias: Tensor | None
    down_bias: Tensor | None
    moe: MoeSpec

    @property
    def plain(self) -> tuple[Tensor, Tensor]:
        """gate_up and down, where they are not packed."""
        assert isinstance(self.gate_up, Tensor), "only kernels that pack get packed weights"
        assert isinstance(self.down, Tensor), "they are packed both or not at all"
        return self.gate_up, self.down

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
