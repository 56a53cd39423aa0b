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
