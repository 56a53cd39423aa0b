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
    table = torch.tensor((*VALUES, 0.0, *(-value for value in VALUES[1:])), device=codes.device)
    return table[unpack(codes).long()]


def unpack(codes: Tensor) -> Tensor:
    """A nibble a byte: [..., K / 2] to [..., K]."""
    return torch.stack((codes & 15, codes >> 4), -1).flatten(-2)


def pack(nibbles: Tensor) -> Tensor:
    """Two nibbles a byte: [..., K] to [..., K / 2]."""
    return nibbles[..., 0::2] | nibbles[..., 1::2] << 4


def nearest_even(magnitudes: Tensor) -> Tensor:
    """The codes, uint8, of the nearest numbers to what is not negative; ties to the even code, and what is
    beyond 6 is 6."""
    flat = magnitudes.contiguous()
    bounds = torch.tensor(MIDPOINTS, device=flat.device, dtype=flat.dtype)
    # An odd code is above the midpoint below it and not at it, an even one at it too.
    at_or_below = torch.bucketize(flat, bounds, right=True, out_int32=True)
    below = torch.bucketize(flat, bounds, right=False, out_int32=True)
    return torch.where(at_or_below % 2 == 0, at_or_below, below).to(torch.uint8)


def nearest_toward_zero(magnitudes: Tensor) -> Tensor:
    """The same, ties to the smaller number."""
    flat = magnitudes.contiguous()
    bounds = torch.tensor(MIDPOINTS, device=flat.device, dtype=flat.dtype)
    return torch.bucketize(flat, bounds, right=False, out_int32=True).to(torch.uint8)
