"""Block scales that round a matrix best, in place of those that its largest weights dictate.

Axes: N rows, K columns, B blocks of 16, C candidates.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from rackscale.checkpoint.numerics.nvfp4 import BLOCK
from rackscale.checkpoint.quantizer.methods.encoded import (
    Encoded,
    base_scale,
    candidate_scales,
    encoded,
    nearest,
    scale_values,
)

OFFSETS = range(-2, 7)
WEIGHTS_AT_ONCE = 1 << 18  # what is tried at a time stays in the cache


def search_shared(weights: Sequence[Tensor]) -> tuple[float, tuple[Encoded, ...]]:
    """A tensor scale for finite matrices that share it, and each in codes and block scales. See `search`."""
    tensor_scale = base_scale(weights)
    return tensor_scale, tuple(search(weight, tensor_scale) for weight in weights)


def search(weight_NK: Tensor, tensor_scale: float) -> Encoded:
    """Each block with the scale of the least squared error, of E4M3 scales around those that take its largest
    weight to 6 and to 4.

    K a multiple of 16, tensor_scale above zero.
    """
    rows = max(1, WEIGHTS_AT_ONCE // weight_NK.shape[1])
    parts = [_search(part.float() / tensor_scale) for part in weight_NK.split(rows)]
    return Encoded(codes=torch.cat([p.codes for p in parts]), scales=torch.cat([p.scales for p in parts]))


def _search(weight_NK: Tensor) -> Encoded:
    blocks_NBJ = weight_NK.unflatten(1, (-1, BLOCK))
    least_NB = torch.full(blocks_NBJ.shape[:2], torch.inf)
    numbers_NBJ = torch.zeros_like(blocks_NBJ)
    scales_NB = torch.ones_like(least_NB, dtype=torch.uint8)
    for tried_NB in candidate_scales(blocks_NBJ, OFFSETS).unbind(-1):
        factors_NBJ = scale_values(tried_NB.contiguous()).unsqueeze(-1)
        rounded = nearest(blocks_NBJ / factors_NBJ)
        losses_NB = (rounded * factors_NBJ - blocks_NBJ).square().sum(-1)
        better = losses_NB < least_NB
        least_NB = torch.where(better, losses_NB, least_NB)
        scales_NB = torch.where(better, tried_NB, scales_NB)
        numbers_NBJ = torch.where(better.unsqueeze(-1), rounded, numbers_NBJ)
    return encoded(numbers_NBJ.flatten(1), scales_NB)
