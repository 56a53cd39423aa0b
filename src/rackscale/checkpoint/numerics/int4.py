"""INT4 in symmetric groups of 32. Source: compressed-tensors 0.20 (PackedQuantizationCompressor), whose bits
`encode` gives."""

import torch
from torch import Tensor

from rackscale.checkpoint.numerics import e2m1

GROUP = 32
LOWEST, HIGHEST = -8, 7
OFFSET = 8


def decode(codes: Tensor, scales: Tensor) -> Tensor:
    """fp32 [N, K] of nibbles [N, K / 2], the even column low, and scales [N, K / 32]."""
    quanta = e2m1.unpack(codes).to(torch.float32) - OFFSET
    return (quanta.view(*scales.shape, GROUP) * scales.float()[..., None]).view(quanta.shape)


def encode(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Codes, uint8 [N, K / 2], and bf16 scales [N, K / 32] of a matrix, which is rounded to bf16 first.

    A scale is the group's largest magnitude / 7.5, and bf16's epsilon for zeros; divisions are in bf16, and
    ties go to even. The largest magnitude itself may saturate at 7.
    """
    groups = weight.bfloat16().unflatten(-1, (-1, GROUP))
    scales = groups.abs().amax(-1) / torch.tensor(7.5, dtype=torch.bfloat16)
    scales = torch.where(scales == 0, torch.finfo(torch.bfloat16).eps, scales)
    quanta = (groups / scales[..., None]).clamp(LOWEST, HIGHEST).round()
    return e2m1.pack((quanta.flatten(-2) + OFFSET).to(torch.uint8)), scales
