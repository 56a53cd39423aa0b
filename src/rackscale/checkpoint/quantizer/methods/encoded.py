"""The numbers of NVFP4 that methods choose among.

Axes: N rows, K columns, B blocks of 16 columns.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rackscale.checkpoint.numerics import e2m1, nvfp4

MAX_SCALE_CODE = 126  # of E4M3: 448; the next one is no number
# What the largest weight is over the tensor scale. ModelOpt has 6 * 448; 256, its "four over six", leaves
# a block room to be stretched by half and more.
SPAN = 6.0 * 256


@dataclass(frozen=True, kw_only=True, slots=True)
class Encoded:
    """A matrix [N, K]. codes: uint8 [N, K / 2], the even column in the low nibble. scales: uint8 [N, K / 16],
    the bits of E4M3. The tensor scale is with whoever chose it."""

    codes: Tensor
    scales: Tensor

    def decode(self, tensor_scale: float) -> Tensor:
        """The matrix in fp32."""
        return nvfp4.decode(self.codes, self.scales, torch.tensor(tensor_scale))


def encoded(numbers_NK: Tensor, scales_NB: Tensor) -> Encoded:
    """From numbers of E2M1 and the bits of block scales. Zero has no sign."""
    nibbles = e2m1.nearest_even(numbers_NK.abs()) | (numbers_NK < 0).to(torch.uint8) << 3
    return Encoded(codes=e2m1.pack(nibbles), scales=scales_NB)


def base_scale(weights: Sequence[Tensor]) -> float:
    """A tensor scale, fp32 and above zero, for matrices that share it."""
    largest = torch.stack([weight.abs().amax() for weight in weights]).amax().float()
    return float(largest / SPAN) or 1.0


def nearest(x: Tensor) -> Tensor:
    """The nearest number of E2M1, ties to the even code; beyond 6 it is 6."""
    magnitude = x.abs()
    steps = torch.where(magnitude < 2, 0.5, torch.where(magnitude < 4, 1.0, 2.0))
    return ((x / steps).round() * steps).clamp(-e2m1.LARGEST, e2m1.LARGEST)


def scale_values(codes: Tensor) -> Tensor:
    """What E4M3's bits stand for, in fp32."""
    return codes.view(torch.float8_e4m3fn).float()


def candidate_scales(blocks: Tensor, offsets: Sequence[int]) -> Tensor:
    """Bits of block scales to try, uint8 with a last axis for the offsets: so many steps of E4M3 beside the
    scale that takes the block's largest to 6. Four or five steps on it goes to 4. blocks: over the tensor
    scale, the last axis the block's columns."""
    wanted = (blocks.abs().amax(-1) / e2m1.LARGEST).clamp(nvfp4.SMALLEST_SCALE, nvfp4.LARGEST_SCALE)
    base = wanted.to(torch.float8_e4m3fn).view(torch.uint8).int()
    steps = torch.tensor(list(offsets), dtype=torch.int32)
    return (base.unsqueeze(-1) + steps).clamp(1, MAX_SCALE_CODE).to(torch.uint8)
