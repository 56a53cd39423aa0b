"""Weights as the forward pass wants them: cast, fused and put input-major once, at load."""

from collections.abc import Iterable

import torch
from torch import Tensor

from rackscale.checkpoint import Checkpoint
from rackscale.runtime.kernels import ExpertWeights, Kernels, Linear
from rackscale.specs import MoeSpec, Span


class Loader:
    """A layer's tensors by their role inside it ("attn.q"), on one device.

    dtype: what is computed in. prefix: the layer's roles begin with it.
    """

    def __init__(
        self, checkpoint: Checkpoint, *, dtype: torch.dtype, device: torch.device, kernels: Kernels
    ) -> None:
        self._checkpoint, self._dtype, self._device = checkpoint, dtype, device
        self._keeps_bf16 = kernels.keeps_bf16 and dtype == torch.float32 and device.type == "cpu"
        self._prefix = ""

    def layer(self, number: int) -> "Loader":
        """The same for the roles of one layer."""
        loader = object.__new__(Loader)
        loader.__dict__.update(self.__dict__, _prefix=f"layers.{number}.")
        return loader

    def has(self, role: str) -> bool:
        """Whether the model has such a tensor."""
        return self._checkpoint.has(self._prefix + role)

    def get(self, role: str, dtype: torch.dtype | None = None) -> Tensor:
        """The role's tensor, contiguous, in `dtype` or the compute dtype."""
        return self._raw(role).to(device=self._device, dtype=dtype or self._dtype).contiguous()

    def maybe(self, role: str, dtype: torch.dtype | None = None) -> Tensor | None:
        """The same, or None where the model has no such tensor."""
        return self.get(role, dtype) if self.has(role) else None

    def matrix(self, role: str) -> Tensor:
        """The role's matrix [out, in], in the dtype that matrices are kept in."""
        return self.kept(self._raw(role).to(self._device))

    def kept(self, matrix: Tensor) -> Tensor:
        """The matrix in bf16 if it is in bf16 and may stay so, or in the compute dtype."""
        return matrix if self._keeps_bf16 and matrix.dtype == torch.bfloat16 else matrix.to(self._dtype)

    def linear(self, *roles: str) -> Linear:
        """One linear layer of several, one after the other along their outputs."""
        return Linear(input_major([self.matrix(role) for role in roles]), self._fused_bias(roles))

    def router(self) -> Linear:
        """The router, in fp32 whatever is computed in."""
        weight = self.get("router", torch.float32).mT.contiguous()
        return Linear(weight, self.maybe("router_bias", torch.float32))

    def experts(self, moe: MoeSpec) -> ExpertWeights:
        """All routed experts, stacked, each copied once, in the checkpoint's dtype."""
        numbers = range(moe.router.num_experts)
        first = self._raw("experts.0.gate")
        width, hidden = first.shape
        dtype = first.dtype if first.dtype in {torch.float32, torch.bfloat16} else self._dtype
        gate_up = torch.empty(len(numbers), hidden, 2 * width, dtype=dtype, device=self._device)
        down = torch.empty(len(numbers), width, hidden, dtype=dtype, device=self._device)
        for number in numbers:
            role = f"experts.{number}"
            gate_up[number, :, :width] = self._raw(f"{role}.gate").mT
            gate_up[number, :, width:] = self._raw(f"{role}.up").mT
            down[number] = self._raw(f"{role}.down").mT
        gate_up_bias = down_bias = None
        if moe.expert_bias:
            gate_up_bias = torch.stack(
                [
                    torch.cat([self.get(f"experts.{n}.{part}_bias") for part in ("gate", "up")])
                    for n in numbers
                ]
            )
            down_bias = torch.stack([self.get(f"experts.{n}.down_bias") for n in numbers])
        return ExpertWeights(
            gate_up=gate_up, down=down, gate_up_bias=gate_up_bias, down_bias=down_bias, moe=moe
        )

    def _raw(self, role: str) -> Tensor:
        return self._checkpoint.tensor(self._prefix + role)

    def _fused_bias(self, roles: Iterable[str]) -> Tensor | None:
        """Biases one after the other, each taken as zero where it is not there; None where none is."""
        if not any(self.has(f"{role}_bias") for role in roles):
            return None
        parts = []
        for role in roles:
            bias = self.maybe(f"{role}_bias")
            width = len(self._raw(role))
            parts.append(torch.zeros(width, dtype=self._dtype, device=self._device) if bias is None else bias)
        return torch.cat(parts)


def input_major(matrices: list[Tensor]) -> Tensor:
    """[out, in] each, one after the other along their outputs, as one [in, sum of outs]. Of two dtypes the
    wider."""
    return torch.cat([matrix.mT for matrix in matrices], 1).contiguous()


def columns(layer: Linear, *spans: Span) -> Linear:
    """A layer that gives some of the outputs. Copies them: kernels want whole rows."""
    weight = torch.cat([layer.weight[:, span.start : span.end] for span in spans], 1)
    bias = None if layer.bias is None else torch.cat([layer.bias[span.start : span.end] for span in spans])
    return Linear(weight, bias)


def rows(layer: Linear, span: Span) -> Linear:
    """A layer of some of the inputs: a view. Of those that make up the whole the first adds the bias."""
    return Linear(layer.weight[span.start : span.end], None if span.start else layer.bias)
