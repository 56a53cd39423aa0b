"""What comes after attention: one expert for all tokens, or a few of many for each."""

import torch
import torch.nn.functional as F
from torch import Tensor

from rackscale.runtime.kernels import Kernels
from rackscale.runtime.model.weights import LayerWeights, Linear
from rackscale.specs import MoeSpec


class Mlp:
    """down(silu(gate) * up), gate and up in one product. role: "ffn" or "shared"."""

    def __init__(self, role: str, weights: LayerWeights, kernels: Kernels) -> None:
        self.kernels = kernels
        self.gate_up = weights.linear(f"{role}.gate", f"{role}.up")
        self.down = weights.linear(f"{role}.down")

    def __call__(self, x_TH: Tensor) -> Tensor:
        """[T, H] to [T, H]."""
        gate, up = self.kernels.linear(x_TH, self.gate_up.weight, self.gate_up.bias).chunk(2, dim=-1)
        return self.kernels.linear(F.silu(gate) * up, self.down.weight, self.down.bias)


class Moe:
    """A router, the routed experts, and a shared one where the model has it."""

    def __init__(self, spec: MoeSpec, weights: LayerWeights, kernels: Kernels) -> None:
        self.spec, self.kernels = spec, kernels
        self.router = Linear(
            weights.get("router", torch.float32), weights.maybe("router_bias", torch.float32)
        )
        self.correction_E = weights.maybe("router_correction", torch.float32)
        self.experts = weights.experts(spec)
        self.shared = Mlp("shared", weights, kernels) if spec.shared_width else None
        self.chosen_TK = torch.zeros(0, spec.router.top_k, dtype=torch.int32)

    def __call__(self, x_TH: Tensor) -> Tensor:
        """[T, H] to [T, H]. Leaves in `chosen_TK` which experts the tokens got."""
        logits_TE = self.kernels.linear(x_TH.float(), self.router.weight, self.router.bias)
        weights_TK, experts_TK = self.kernels.route(logits_TE, self.correction_E, self.spec.router)
        self.chosen_TK = experts_TK
        routed = self.kernels.experts(x_TH, weights_TK, experts_TK, self.experts)
        return routed if self.shared is None else routed + self.shared(x_TH)
