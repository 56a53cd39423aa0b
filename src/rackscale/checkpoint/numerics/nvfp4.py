"""NVFP4 in numbers: blocks of 16 E2M1 codes with an E4M3 scale, and one fp32 scale for the tensor.

Source: nvidia-modelopt 0.47 (NVFP4QTensor), whose bits `encode` gives, and compressed-tensors 0.20
(NVFP4PackedCompressor), whose bits `encode_compressed_tensors` gives.
"""

import torch
from torch import Tensor

from rackscale.checkpoint.numerics import e2m1

BLOCK = 16
LARGEST_SCALE = 448.0
SMALLEST_SCALE = 2.0**-9
SPAN = e2m1.LARGEST * LARGEST_SCALE  # 2688: the largest number, in tensor scales


def decode(codes: Tensor, scales: Tensor, tensor_scale: Tensor) -> Tensor:
    """fp32 [N, K] of codes uint8 [N, K / 2] and E4M3 scales [N, K / 16] (or their bits), ModelOpt's way:
    the two scales are multiplied first."""
    return _scaled(codes, _floats(scales) * tensor_scale.float().reshape(()))


def decode_reciprocal(codes: Tensor, scales: Tensor, global_scale: Tensor) -> Tensor:
    """The same in compressed-tensors' convention: the block's scale is divided by the global one."""
    return _scaled(codes, _floats(scales) / global_scale.float().reshape(()))


def _floats(scales: Tensor) -> Tensor:
    return scales.view(torch.float8_e4m3fn).float()


def _scaled(codes: Tensor, scales: Tensor) -> Tensor:
    values = e2m1.values_of(codes)
    return (values.view(*scales.shape, BLOCK) * scales[..., None]).view(values.shape)


def tensor_scale(weight: Tensor) -> Tensor:
    """weight_scale_2, fp32: the largest magnitude / 2688. 1 where that is zero: scales stay finite."""
    scale = weight.float().abs().amax() / SPAN
    return torch.where(scale > 0, scale, 1.0)


def encode(weight: Tensor, scale: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """Codes uint8 [N, K / 2], scales e4m3 [N, K / 16] and the tensor's scale of a finite matrix, as ModelOpt
    rounds. scale: the tensor's where others share it (gate and up; query, key and value).
    """
    scale = tensor_scale(weight) if scale is None else scale
    blocks = weight.float().unflatten(-1, (-1, BLOCK))
    wanted = blocks.abs().amax(-1) / (e2m1.LARGEST * scale)
    wanted = torch.where(wanted == 0, 1.0, wanted).clamp(SMALLEST_SCALE, LARGEST_SCALE)
    scales = wanted.to(torch.float8_e4m3fn)
    return _codes(blocks, scales.float() * scale), scales, scale


def encode_compressed_tensors(weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The same with a global scale [1], 2688 / the largest magnitude, as compressed-tensors rounds: the
    scales' first divisions are in the weight's dtype, and a block's scale of zero becomes 0.125.
    """
    blocks = weight.unflatten(-1, (-1, BLOCK))
    largest = blocks.abs().amax(-1)
    whole = largest.amax().clamp(min=torch.finfo(weight.dtype).tiny)
    scale = torch.nan_to_num(SPAN / whole, nan=1.0, posinf=1.0).float().reshape(1)
    wanted = scale * (largest / torch.tensor(e2m1.LARGEST, dtype=weight.dtype))
    scales = wanted.clamp(max=LARGEST_SCALE).to(torch.float8_e4m3fn).float()
    scales = torch.where(scales == 0, 0.125, scales)
    return _codes(blocks, scales / scale), scales.to(torch.float8_e4m3fn), scale


def _codes(blocks: Tensor, scales: Tensor) -> Tensor:
    scaled = blocks / scales[..., None]
    nibbles = e2m1.nearest_even(scaled.abs()) | (scaled < 0).to(torch.uint8) << 3
    return e2m1.pack(nibbles.flatten(-2))
