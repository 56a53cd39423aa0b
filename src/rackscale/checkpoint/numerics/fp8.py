"""FP8 (E4M3) in blocks of 128 x 128; those at the edges are smaller.

Source: README_WEIGHTS.md of deepseek-ai/DeepSeek-V3; transformers 5.23 (Fp8Quantize), whose bits `encode`
gives for matrices that divide, and for those that do not what padding with zeros would give.
"""

import torch
from torch import Tensor
from torch.nn.functional import pad

BLOCK = 128
LARGEST = 448.0


def decode(weight: Tensor, scales: Tensor) -> Tensor:
    """fp32 [N, K] of E4M3 weights (or their bits) and what multiplies each block."""
    rows, columns = weight.shape
    spread = scales.float().repeat_interleave(BLOCK, 0)[:rows].repeat_interleave(BLOCK, 1)[:, :columns]
    return weight.view(torch.float8_e4m3fn).float() * spread


def encode(weight: Tensor, *, by_reciprocal: bool = True) -> tuple[Tensor, Tensor]:
    """Weights and fp32 scales of blocks, in fp32 arithmetic. A block of zeros has scale 1.

    by_reciprocal: multiply by 448 / the largest magnitude and keep 1 / that, as transformers does; or
    divide by the largest magnitude / 448, as DeepSeek's text has it. The last bit may differ.
    """
    rows, columns = weight.shape
    padded = pad(weight.float(), (0, -columns % BLOCK, 0, -rows % BLOCK))
    blocks = padded.unflatten(0, (-1, BLOCK)).unflatten(-1, (-1, BLOCK))
    largest = blocks.abs().amax((1, 3))
    one = torch.ones_like(largest)
    if by_reciprocal:
        forward = torch.where(largest > 0, LARGEST / torch.where(largest > 0, largest, one), one)
        scales, scaled = 1.0 / forward, blocks * forward[:, None, :, None]
    else:
        scales = torch.where(largest > 0, largest / LARGEST, one)
        scaled = blocks / scales[:, None, :, None]
    rounded = scaled.clamp(-LARGEST, LARGEST).to(torch.float8_e4m3fn)
    return rounded.flatten(2).flatten(0, 1)[:rows, :columns].contiguous(), scales
