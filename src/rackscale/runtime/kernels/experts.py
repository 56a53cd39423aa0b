"""The routed experts of one layer, laid out once at load."""

from dataclasses import dataclass

from torch import Tensor

from rackscale.specs import Activation, MoeSpec


@dataclass(frozen=True, kw_only=True, slots=True)
class ExpertWeights:
    """Input-major, so that a product adds rows of the weight and needs no sum across lanes.

    gate_up [E, hidden, 2 * width], gate first; down [E, width, hidden]; biases [E, 2 * width] and
    [E, hidden], or None. In the checkpoint's own dtype: widening bf16 to fp32 loses nothing.
    """

    gate_up: Tensor
    down: Tensor
    gate_up_bias: Tensor | None
    down_bias: Tensor | None
    moe: MoeSpec

    @property
    def clamped(self) -> bool:
        return self.moe.activation == Activation.SWIGLU_CLAMPED
