"""From a row of weights and a uniform number to a token.

The inverse of the distribution function over tokens in the order of their ids: the token drawn is
the first whose running sum of weights exceeds u times the whole. The sum is taken in two levels,
blocks of `_BLOCK` tokens and tokens within a block, so that only one block of a row is summed
token by token: the device sums the blocks, the host does the rest, in float64. A row's result
depends on that row alone.
"""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from rackscale.core import IntColumn

Uniforms = npt.NDArray[np.float64]
Drawable = npt.NDArray[np.bool_]

_BLOCK = 64


def draw(weights_NV: Tensor, uniform_N: Uniforms) -> tuple[IntColumn, Drawable]:
    """The token of each row, and whether the row could be drawn from.

    weights_NV: fp32 >= 0, in any scale. A row of zeros, or with a NaN, could not; its token means
    nothing. A token of weight 0 is never drawn.
    """
    blocks_NBW = _in_blocks(weights_NV)
    running_NB = np.cumsum(blocks_NBW.sum(-1).cpu().numpy(), axis=-1, dtype=np.float64)
    total_N1 = running_NB[:, -1:]
    target_N1 = uniform_N[:, None] * total_N1
    last_block = running_NB.shape[1] - 1
    block_N = np.minimum((running_NB <= target_N1).sum(-1), last_block)
    rows_N = np.arange(len(block_N))
    before_N = np.where(block_N > 0, running_NB[rows_N, block_N - 1], 0.0)
    inside_NW = blocks_NBW[torch.from_numpy(rows_N), torch.from_numpy(block_N)].cpu().numpy()
    running_NW = np.cumsum(inside_NW, axis=-1, dtype=np.float64)
    offset_N = (running_NW <= target_N1 - before_N[:, None]).sum(-1)
    # A block's own sum and the running sum over it may round apart: never step past its last
    # token of weight.
    last_N = (running_NW < running_NW[:, -1:]).sum(-1)
    tokens_N = block_N * _BLOCK + np.minimum(offset_N, last_N)
    return tokens_N.astype(np.int32), total_N1[:, 0] > 0.0


def _in_blocks(weights_NV: Tensor) -> Tensor:
    short = -weights_NV.shape[1] % _BLOCK
    padded = torch.nn.functional.pad(weights_NV, (0, short)) if short else weights_NV
    return padded.view(len(padded), -1, _BLOCK)
