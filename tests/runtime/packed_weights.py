"""Random packed matrices, their exact values, and what a kernel makes of them."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from rackscale.checkpoint.codecs.packed import Format, Packed
from rackscale.runtime import _native
from rackscale.runtime.kernels.packing import PackedMatrix, Packer, Part

E2M1 = torch.tensor([0, 0.5, 1, 1.5, 2, 3, 4, 6, 0, -0.5, -1, -1.5, -2, -3, -4, -6], dtype=torch.float64)
FP32, BF16, INT8, NVFP4 = range(4)  # csrc/packed.hpp's Activations


@dataclass(frozen=True, slots=True)
class Weight:
    """A matrix as a checkpoint has it, and its values [N, K] in fp64."""

    part: Part
    values: Tensor


def random_weight(
    format_: Format | None, rows: int, columns: int, seed: int = 0, scale: float = 1.0
) -> Weight:
    """None: bf16. Scales from subnormal to large, times `scale`; some blocks' are zero."""
    generator = torch.Generator().manual_seed(seed)

    def integers(low: int, high: int, shape: tuple[int, ...]) -> Tensor:
        return torch.randint(low, high, shape, generator=generator, dtype=torch.int64)

    if format_ is None:
        plain = torch.randn(rows, columns, generator=generator).to(torch.bfloat16)
        return Weight(plain, plain.double())
    if format_ == Format.FP8:
        codes = integers(0, 256, (rows, columns)).to(torch.uint8)
        codes[(codes & 0x7F) == 0x7F] = 0x81
        scales = torch.rand(-(-rows // 128), -(-columns // 128), generator=generator) * scale
        values = codes.view(torch.float8_e4m3fn).double()
        wide = scales.double().repeat_interleave(128, 0).repeat_interleave(128, 1)
        return Weight(Packed(format=format_, codes=codes, scales=scales), values * wide[:rows, :columns])
    codes = integers(0, 256, (rows, columns // 2)).to(torch.uint8)
    nibbles = torch.stack((codes & 15, codes >> 4), -1).view(rows, columns).long()
    block = 16 if format_ == Format.NVFP4 else 32
    shape = (rows, columns // block)
    if format_ == Format.NVFP4:
        bits = integers(0, 127, shape).to(torch.uint8)
        bits[::3, 0] = 0
        decoded = bits.view(torch.float8_e4m3fn).double()
        tensor_scale = float(np.float32(0.37 * scale))
        values = E2M1[nibbles] * (decoded * tensor_scale).repeat_interleave(block, 1)
        return Weight(Packed(format=format_, codes=codes, scales=bits, tensor_scale=tensor_scale), values)
    if format_ == Format.INT4:
        halves = (torch.rand(shape, generator=generator) * scale).to(torch.bfloat16)
        values = (nibbles - 8).double() * halves.double().repeat_interleave(block, 1)
        return Weight(Packed(format=format_, codes=codes, scales=halves), values)
    exponents = integers(120, 134, shape).to(torch.uint8)
    exponents[::5] = 0
    decoded = torch.ldexp(torch.ones(shape, dtype=torch.float64), exponents.double() - 127)
    return Weight(
        Packed(format=format_, codes=codes, scales=exponents),
        E2M1[nibbles] * decoded.repeat_interleave(block, 1),
    )


def packed(part: Part) -> PackedMatrix:
    """By itself."""
    packer = Packer(2)
    matrix = packer.matrix([part])
    packer.take()()
    return matrix


def descriptor(matrix: PackedMatrix, activations: int, input_scale: float = 0.0) -> _native.Packed:
    """For the kernels; the matrix has to outlive it."""
    return _native.Packed(
        format=matrix.layout,
        activations=activations,
        depth=matrix.depth,
        columns=matrix.columns,
        tiles=matrix.tiles.data_ptr(),
        tile_scales=matrix.tile_scales.data_ptr(),
        input_scale=input_scale,
    )


def product(
    x_TK: Tensor, matrix: PackedMatrix, activations: int, threads: int = 1, input_scale: float = 0.0
) -> Tensor:
    """Rows times the matrix."""
    out = torch.full((len(x_TK), matrix.columns), torch.nan)
    _native.packed_linear(
        x_TK.data_ptr(),
        x_TK.stride(0),
        len(x_TK),
        descriptor(matrix, activations, input_scale),
        0,
        False,  # noqa: FBT003 (by position, as all of _native's)
        out.data_ptr(),
        out.stride(0),
        threads,
    )
    return out


def as_int8(x_TK: Tensor) -> Tensor:
    """What activations of eight bits are, in fp64: a scale for every 128 columns."""
    groups = [_int8_group(group) for group in x_TK.split(128, dim=1)]
    return torch.cat(groups, 1)


def _int8_group(x: Tensor) -> Tensor:
    most = x.abs().amax(1, keepdim=True)
    inverse = torch.where(most > 0, 127 / most, 0)
    return (x * inverse).round().double() * (most / 127).double()
