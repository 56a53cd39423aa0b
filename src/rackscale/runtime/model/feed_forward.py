"""What comes after attention: one expert for all tokens, or a few of many for each."""

import torch
from torch import Tensor

from rackscale.runtime.comm.all_to_all import AllToAll
from rackscale.runtime.kernels import Kernels, MlpWeights, MoeWeights
from rackscale.runtime.model.weights import Loader
from rackscale.specs import MoeSpec


class Mlp:
    """down(silu(gate) * up), gate and up in one product."""

    def __init__(self, weights: MlpWeights, kernels: Kernels) -> None:
        self.weights, self.kernels = weights, kernels

    def __call__(self, x_TH: Tensor) -> Tensor:
        """[T, H] to [T, H]."""
        return self.kernels.mlp(x_TH, self.weights)


class Moe:
    """A router, the routed experts, and a shared one where the model has it. number: among the layers with
    experts. ranks: who has the experts, if not all are here."""

    def __init__(self, weights: MoeWeights, kernels: Kernels, ranks: AllToAll | None, number: int) -> None:
        self.weights, self.kernels, self.spec = weights, kernels, weights.spec
        self.ranks, self.number = ranks, number
        self.shared = None if weights.shared is None else Mlp(weights.shared, kernels)
        self.chosen_TK = torch.zeros(0, self.spec.router.top_k, dtype=torch.int32)

    def __call__(self, x_TH: Tensor) -> Tensor:
        """[T, H] to [T, H]. Leaves in `chosen_TK` which experts the tokens got."""
        weights, kernels = self.weights, self.kernels
        logits_TE = kernels.linear(x_TH.float(), weights.router)
        gates_TK, self.chosen_TK = kernels.route(logits_TE, weights.correction_E, self.spec.router)
        if self.ranks is None:
            routed = kernels.experts(x_TH, gates_TK, self.chosen_TK, weights.experts)
            return routed if self.shared is None else routed + self.shared(x_TH)
        return self._on_ranks(self.ranks, x_TH, gates_TK)

    def _on_ranks(self, ranks: AllToAll, x_TH: Tensor, gates_TK: Tensor) -> Tensor:
        """The shared expert is computed while tokens are on their way."""
        ranks.dispatch(self.number, x_TH, gates_TK, self.chosen_TK)
        shared = None if self.shared is None else self.shared(x_TH)
        received = ranks.receive()
        hidden_NH = received.hidden_NH.to(x_TH.dtype)
        sums_NH = self.kernels.experts(
            hidden_NH, received.gates_NK, received.experts_NK, self.weights.experts
        )
        routed = ranks.combine(sums_NH).to(x_TH.dtype)
        return routed if shared is None else routed + shared

    def loads(self) -> Tensor:
        """How many of the last tokens each expert got, int32 [E]."""
        return torch.bincount(self.chosen_TK.flatten(), minlength=self.spec.router.num_experts).int()


def load_mlp(loader: Loader, role: str) -> MlpWeights:
    """role: "ffn" or "shared"."""
    packed = loader.packed_mlp(role)
    if packed is not None:
        return packed
    return MlpWeights(gate_up=loader.linear(f"{role}.gate", f"{role}.up"), down=loader.linear(f"{role}.down"))


def load_moe(loader: Loader, spec: MoeSpec) -> MoeWeights:
    """Router, experts, and the shared expert where the model has one."""
    return MoeWeights(
        spec=spec,
        router=loader.router(),
        correction_E=loader.maybe("router_correction", torch.float32),
        experts=loader.experts(spec),
        shared=load_mlp(loader, "shared") if spec.shared_width else None,
    )
