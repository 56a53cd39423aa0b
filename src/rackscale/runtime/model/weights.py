"""Weights as the forward pass wants them: cast and fused once, at load."""

from collections.abc import Iterable

import torch
from torch import Tensor

from rackscale.checkpoint import Checkpoint
from rackscale.runtime.kernels import ExpertWeights
from rackscale.specs import MoeSpec


class Linear:
    """A linear layer, its weight put input-major. rows: [out, in]."""

    def __init__(self, rows: Tensor, bias: Tensor | None) -> None:
        self.weight, self.bias = rows.mT.contiguous(), bias


class LayerWeights:
    """A layer's tensors by their role inside it ("attn.q"), in the compute dtype."""

    def __init__(self, checkpoint: Checkpoint, prefix: str, dtype: torch.dtype, device: torch.device) -> None:
        self._checkpoint, self._prefix = checkpoint, prefix
        self._dtype, self._device = dtype, device

    def get(self, role: str, dtype: torch.dtype | None = None) -> Tensor:
        """The role's tensor; contiguous, in `dtype` or the compute dtype."""
        tensor = self._checkpoint.tensor(self._prefix + role)
        return tensor.to(device=self._device, dtype=dtype or self._dtype).contiguous()

    def maybe(self, role: str, dtype: torch.dtype | None = None) -> Tensor | None:
        """The same, or None where the model has no such tensor."""
        return self.get(role, dtype) if self._checkpoint.has(self._prefix + role) else None

    def linear(self, *roles: str) -> "Linear":
        """One linear layer of several, one after the other along their outputs."""
        return Linear(self.fused(roles), self.fused_bias(roles))

    def fused(self, roles: Iterable[str]) -> Tensor:
        """Several matrices or biases, one after the other along their outputs."""
        return torch.cat([self.get(role) for role in roles])

    def fused_bias(self, roles: Iterable[str]) -> Tensor | None:
        """Biases of which each is there or taken as zero; None where none is there."""
        roles = list(roles)
        if not any(self._checkpoint.has(f"{self._prefix}{role}_bias") for role in roles):
            return None
        parts = []
        for role in roles:
            bias = self.maybe(f"{role}_bias")
            width = self._checkpoint.tensor(self._prefix + role).shape[0]
            parts.append(torch.zeros(width, dtype=self._dtype, device=self._device) if bias is None else bias)
        return torch.cat(parts)

    def experts(self, moe: MoeSpec) -> ExpertWeights:
        """All routed experts of the layer, stacked and input-major, each copied once."""
        numbers = range(moe.router.num_experts)
        raw = self._checkpoint.tensor
        first = raw(f"{self._prefix}experts.0.gate")
        width, hidden = first.shape
        dtype = first.dtype if first.dtype in {torch.float32, torch.bfloat16} else self._dtype
        gate_up = torch.empty(len(numbers), hidden, 2 * width, dtype=dtype, device=self._device)
        down = torch.empty(len(numbers), width, hidden, dtype=dtype, device=self._device)
        for number in numbers:
            role = f"{self._prefix}experts.{number}"
            gate_up[number, :, :width] = raw(f"{role}.gate").mT
            gate_up[number, :, width:] = raw(f"{role}.up").mT
            down[number] = raw(f"{role}.down").mT
        gate_up_bias = down_bias = None
        if moe.expert_bias:
            gate_up_bias = torch.stack(
                [self.fused((f"experts.{n}.gate_bias", f"experts.{n}.up_bias")) for n in numbers]
            )
            down_bias = torch.stack([self.get(f"experts.{n}.down_bias") for n in numbers])
        return ExpertWeights(
            gate_up=gate_up, down=down, gate_up_bias=gate_up_bias, down_bias=down_bias, moe=moe
        )
