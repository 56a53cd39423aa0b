"""Scales out of files, checked before anything is multiplied by them. Called with torch loaded."""

import math
from typing import TYPE_CHECKING

from rackscale.checkpoint.codecs.codec import bad_scale

if TYPE_CHECKING:
    from torch import Tensor

LARGEST_E4M3 = 0x7E  # 448; 0x7f is NaN, and the bit above is the sign
NAN_E8M0 = 0xFF


def positive(scale: "Tensor", name: str) -> float:
    """A tensor of one number. Raises SpecError unless it is finite and above 0."""
    value = float(scale.item())
    if not 0 < value < math.inf:
        raise bad_scale(name, f"is {value}")
    return value


def positive_or_none(scale: "Tensor | None", name: str) -> float | None:
    """The same, or None where there is no tensor."""
    return None if scale is None else positive(scale, name)


def reciprocal(scale: "Tensor", name: str) -> float:
    """1 / a tensor of one number. Raises SpecError unless it is finite and above 0."""
    return 1 / positive(scale, name)


def check_e4m3(scales: "Tensor", name: str) -> "Tensor":
    """The bits of E4M3 scales, uint8. Raises SpecError where one is NaN or negative."""
    bits = as_bytes(scales)
    if bits.numel() and bits.max().item() > LARGEST_E4M3:
        raise bad_scale(name, "has scales that are negative or not finite")
    return bits


def check_e8m0(scales: "Tensor", name: str) -> "Tensor":
    """The bits of E8M0 scales, uint8. Raises SpecError where one is NaN."""
    bits = as_bytes(scales)
    if bits.numel() and bits.max().item() == NAN_E8M0:
        raise bad_scale(name, "has scales that are not finite")
    return bits


def check_floats(scales: "Tensor", name: str) -> "Tensor":
    """The scales. Raises SpecError where one is negative or not finite."""
    if scales.numel():
        low, high = (bound.item() for bound in scales.aminmax())
        if not (low >= 0 and high < math.inf):  # NaN spreads to both
            raise bad_scale(name, "has scales that are negative or not finite")
    return scales


def as_bytes(tensor: "Tensor") -> "Tensor":
    """A view of the tensor's bytes along its last axis."""
    import torch  # noqa: PLC0415 (its callers have loaded it; who reads headers has not)

    return tensor.view(torch.uint8)
