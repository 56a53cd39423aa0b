"""E2M1: the numbers of FP4. Codes 0 to 7 are 0, 0.5, 1, 1.5, 2, 3, 4, 6, and 8 is the sign.

Two codes lie in a byte, the even column in the low nibble.
"""

import torch
from torch import Tensor

VALUES = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
MIDPOINTS = (0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5.0)
LARGEST = 6.0
SIGN = 8


def values_of(codes: Tensor) -> Tensor:
    """fp32 out of packed codes: [..., K / 2] uint8 to [..., K]. Both zeros are 0."""
    values = torch.tensor((*VALUES, 0.0, *(-value for value in VALUES[1:])), device=codes.device)
    pairs = torch.stack((values.repeat(16), values.repeat_interleave(16)), -1)  # by byte: a look-up for two
    return pairs.index_select(0, codes.reshape(-1).int()).view(*codes.shape[:-1], 2 * codes.shape[-1])


def unpack(codes: Tensor) -> Tensor:
    """A nibble a byte: [..., K / 2] to [..., K]."""
    return torch.stack((codes & 15, codes >> 4), -1).flatten(-2)


def pack(nibbles: Tensor) -> Tensor:
    """Two nibbles a byte: [..., K] to [..., K / 2]."""
    return nibbles[..., 0::2] | nibbles[..., 1::2] << 4


def nearest_even(magnitudes: Tensor) -> Tensor:
    """The codes, uint8, of the nearest numbers to what is not negative; ties to the even code, and what is
    beyond 6 is 6."""
    codes = torch.zeros_like(magnitudes, dtype=torch.uint8)
    for code, midpoint in enumerate(MIDPOINTS):  # between code and code + 1
        codes += magnitudes > midpoint if code % 2 == 0 else magnitudes >= midpoint
    return codes


def nearest_toward_zero(magnitudes: Tensor) -> Tensor:
    """The same, ties to the smaller number."""
    codes = torch.zeros_like(magnitudes, dtype=torch.uint8)
    for midpoint in MIDPOINTS:
        codes += magnitudes > midpoint
    return codes
