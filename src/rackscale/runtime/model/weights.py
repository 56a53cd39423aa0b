"""Weights as the forward pass wants them: cast, fused and put input-major once, at load."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from rackscale.checkpoint import Checkpoint
from rackscale.checkpoint.codecs import Format
from rackscale.checkpoint.quantizer import quantize_packed
from rackscale.runtime.kernels import ExpertWeights, Kernels, Linear, MlpWeights
from rackscale.runtime.kernels.packing import ExpertParts, PackedMatrix, Packer, Part, packable
from rackscale.runtime.precision import Precision, Products
from rackscale.specs import MoeSpec, Span


@dataclass(frozen=True, slots=True)
class Rows:
    """The rows of a role's matrix, in another order than the checkpoint's if one is given."""

    role: str
    order: Tensor | None = None


class Loader:
    """A layer's tensors by their role inside it ("attn.q"), on one device.

    prefix: the layer's roles begin with it. packer: of kernels that pack; None: everything is decoded.
    quantises: experts, into NVFP4, where they are not in a few bits.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        *,
        precision: Precision,
        device: torch.device,
        kernels: Kernels,
        packer: Packer | None,
        quantises: bool = False,
    ) -> None:
        self._checkpoint, self._dtype, self._device = checkpoint, precision.dtype, device
        self._keeps_bf16 = kernels.keeps_bf16 and precision.dtype == torch.float32 and device.type == "cpu"
        self._packer, self._packs_bf16 = packer, precision.products is not Products.FP32
        self._quantises, self._prefix = quantises, ""

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
        return self.fused([Rows(role) for role in roles], self._fused_bias(roles))

    def fused(self, parts: Sequence[Rows], bias: Tensor | None = None) -> Linear:
        """The same with rows in an order. Packed where it can be."""
        packed = self._all_packed(part.role for part in parts)
        if packed is None or not all(map(is_orderable, packed, parts)):
            return Linear(input_major([ordered(self.matrix(part.role), part.order) for part in parts]), bias)
        assert self._packer is not None, "something packs them"
        rows = [packed_rows(one, part.order) for one, part in zip(packed, parts, strict=True)]
        return Linear(self._packer.matrix(rows), bias)

    def _all_packed(self, roles: Iterable[str]) -> list[Part] | None:
        """The roles' matrices in the bits that they have in the checkpoint; None where they are not of one
        kind that the kernels take so."""
        if self._packer is None:
            return None
        parts: list[Part] = []
        for role in roles:
            packed = self._checkpoint.packed(self._prefix + role)
            if packed is None and not self._packs_bf16:
                return None
            parts.append(self._raw(role) if packed is None else packed)
        return parts if packable(parts) else None

    def packed_mlp(self, role: str) -> MlpWeights | None:
        """An MLP's matrices; None where they are not all in a few bits, or have biases."""
        pair, down = self._all_packed([f"{role}.gate", f"{role}.up"]), self._all_packed([f"{role}.down"])
        if self._packer is None or pair is None or down is None or self.has(f"{role}.down_bias"):
            return None
        return MlpWeights(gate_up=Linear(self._packer.gate_up(*pair)), down=Linear(self._packer.matrix(down)))

    def router(self) -> Linear:
        """The router, in fp32 whatever is computed in."""
        weight = self.get("router", torch.float32).mT.contiguous()
        return Linear(weight, self.maybe("router_bias", torch.float32))

    def experts(self, moe: MoeSpec) -> ExpertWeights:
        """All routed experts, stacked, each copied once, packed or in the checkpoint's dtype."""
        numbers = range(moe.router.num_experts)
        gate_up_bias = down_bias = None
        if moe.expert_bias:
            gate_up_bias = torch.stack(
                [
                    torch.cat([self.get(f"experts.{n}.{part}_bias") for part in ("gate", "up")])
                    for n in numbers
                ]
            )
            down_bias = torch.stack([self.get(f"experts.{n}.down_bias") for n in numbers])
        gate_up, down = self._packed_experts(numbers) or self._stacked_experts(numbers)
        return ExpertWeights(
            gate_up=gate_up, down=down, gate_up_bias=gate_up_bias, down_bias=down_bias, moe=moe
        )

    def _packed_experts(self, numbers: range) -> tuple[PackedMatrix, PackedMatrix] | None:
        """None: they are not all in one kind of a few bits."""
        if self._packer is None:
            return None
        find = self._quantised if self._quantises else self._all_packed
        experts = []
        for role in (f"experts.{number}" for number in numbers):
            pair, down = find([f"{role}.gate", f"{role}.up"]), find([f"{role}.down"])
            if pair is None or down is None:
                return None
            experts.append(ExpertParts(gate=pair[0], up=pair[1], down=down[0]))
        return self._packer.experts(experts)

    def _quantised(self, roles: Sequence[str]) -> list[Part] | None:
        """Matrices that share a scale, in NVFP4 if they are not in a few bits already."""
        if self._checkpoint.packed(self._prefix + roles[0]) is not None:
            return self._all_packed(roles)
        matrices = [self._raw(role) for role in roles]
        largest = max(float(matrix.abs().max()) for matrix in matrices)
        return [quantize_packed(matrix, largest) for matrix in matrices]

    def _stacked_experts(self, numbers: range) -> tuple[Tensor, Tensor]:
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
        return gate_up, down

    def packing(self) -> Callable[[], None]:
        """The work of packing what was loaded since the last time; the files' pages are not needed any more
        then."""
        work = None if self._packer is None else self._packer.take()

        def pack() -> None:
            if work is not None:
                work()
                self._checkpoint.forget_pages()

        return pack

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


def ordered(matrix: Tensor, order: Tensor | None) -> Tensor:
    """Its rows in that order."""
    return matrix if order is None else matrix[order]


def is_orderable(part: Part, rows: Rows) -> bool:
    """Whether the rows can be had in their order without unpacking: not where scales are of blocks of
    rows."""
    return rows.order is None or isinstance(part, Tensor) or part.format is not Format.FP8


def packed_rows(part: Part, order: Tensor | None) -> Part:
    """The same of what is packed row by row."""
    if isinstance(part, Tensor) or order is None:
        return ordered(part, order) if isinstance(part, Tensor) else part
    return replace(part, codes=part.codes[order], scales=part.scales[order])


def columns(layer: Linear, *spans: Span) -> Linear:
    """A layer that gives some of the outputs. Copies them: kernels want whole rows."""
    bias = None if layer.bias is None else torch.cat([layer.bias[span.start : span.end] for span in spans])
    if isinstance(layer.weight, PackedMatrix):
        return Linear(layer.weight.some_outputs(spans), bias)
    return Linear(torch.cat([layer.weight[:, span.start : span.end] for span in spans], 1), bias)


def rows(layer: Linear, span: Span) -> Linear:
    """A layer of some of the inputs: a view, but for packed ones. Of those that make up the whole the first
    adds the bias."""
    bias = None if span.start else layer.bias
    if isinstance(layer.weight, PackedMatrix):
        return Linear(layer.weight.inputs(span.start, span.end), bias)
    return Linear(layer.weight[span.start : span.end], bias)
