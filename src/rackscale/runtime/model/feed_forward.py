"""What comes after attention: one expert for all tokens, or a few of many for each."""

import torch
import torch.nn.functional as F
from torch import Tensor

from rackscale.runtime.kernels import Kernels
from rackscale.runtime.model.weights import LayerWeights
from rackscale.specs import MoeSpec


class Mlp:
    """down(silu(gate) * up), gate and up in one product. role: "ffn" or "shared"."""

    def __init__(self, role: str, weights: LayerWeights) -> None:
        self.gate_up = weights.fused((f"{role}.gate", f"{role}.up"))
        self.gate_up_bias = weights.fused_bias((f"{role}.gate", f"{role}.up"))
        self.down, self.down_bias = weights.get(f"{role}.down"), weights.maybe(f"{role}.down_bias")

    def __call__(self, x_TH: Tensor) -> Tensor:
        """[T, H] to [T, H]."""
        gate, up = F.linear(x_TH, self.gate_up, self.gate_up_bias).chunk(2, dim=-1)
        return F.linear(F.silu(gate) * up, self.down, self.down_bias)


class Moe:
    """A router, the routed experts, and a shared one where the model has it."""

    def __init__(self, spec: MoeSpec, weights: LayerWeights, kernels: Kernels) -> None:
        self.spec, self.kernels = spec, kernels
        self.router = weights.get("router", torch.float32)
        self.router_bias = weights.maybe("router_bias", torch.float32)
        self.correction_E = weights.maybe("router_correction", torch.float32)
        self.experts = weights.experts(spec)
        self.shared = Mlp("shared", weights) if spec.shared_width else None
        self.load_E = torch.zeros(spec.router.num_experts, dtype=torch.int32)

    def __call__(self, x_TH: Tensor) -> Tensor:
        """[T, H] to [T, H]. Leaves in `load_E` how many tokens each expert got."""
        logits_TE = F.linear(x_TH.float(), self.router, self.router_bias)
        weights_TK, experts_TK = self.kernels.route(logits_TE, self.correction_E, self.spec.router)
        self.load_E = torch.bincount(experts_TK.flatten(), minlength=self.spec.router.num_experts)
        routed = self.kernels.experts(x_TH, weights_TK, experts_TK, self.experts)
        return routed if self.shared is None else routed + self.shared(x_TH)
