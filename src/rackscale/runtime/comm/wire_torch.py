"""Rows on the wire, made by torch on any device: the same bytes as csrc/all_to_all.cpp makes, padding aside.

Axes: N rows, H elements of a row, G groups of elements that share a scale, B bytes.
"""

import torch
from torch import Tensor

from rackscale.runtime.comm.wire import FP8_LARGEST, FP8_SCALED, Wire

LINE = 64  # rows, and the parts of a row, begin at multiples of it
SMALLEST_SCALE = 2.0**-126  # whose inverse is finite
NOT_A_NUMBER_FP8 = 0x7F
NOT_A_NUMBER_BF16 = 0x7FC0


def lines(num_bytes: int) -> int:
    """Rounded up to whole lines."""
    return -(-num_bytes // LINE) * LINE


def row_bytes(wire: Wire, width: int) -> int:
    """The length of a row of `width` elements."""
    match wire:
        case Wire.FP32:
            return lines(4 * width)
        case Wire.BF16:
            return lines(2 * width)
        case Wire.FP8:
            return _scale_bytes(width) + lines(width)


def encode_rows(wire: Wire, rows_NH: Tensor, out_NB: Tensor) -> None:
    """fp32 rows into the first `row_bytes` of each row of `out_NB`, uint8. Padding stays what it was."""
    width = rows_NH.shape[1]
    match wire:
        case Wire.FP32:
            out_NB[:, : 4 * width].view(torch.float32).copy_(rows_NH)
        case Wire.BF16:
            codes = rows_NH.bfloat16().view(torch.int16)
            codes = torch.where(rows_NH.isnan(), NOT_A_NUMBER_BF16, codes)
            out_NB[:, : 2 * width].view(torch.int16).copy_(codes)
        case Wire.FP8:
            start = _scale_bytes(width)
            scales_NG, codes_NH = _to_fp8(rows_NH)
            out_NB[:, : 4 * scales_NG.shape[1]].view(torch.float32).copy_(scales_NG)
            out_NB[:, start : start + width].copy_(codes_NH)


def decode_rows(wire: Wire, from_NB: Tensor, width: int) -> Tensor:
    """The rows again, fp32 [N, width]."""
    match wire:
        case Wire.FP32:
            return from_NB[:, : 4 * width].view(torch.float32)
        case Wire.BF16:
            return from_NB[:, : 2 * width].view(torch.bfloat16).float()
        case Wire.FP8:
            start = _scale_bytes(width)
            scales_NG = from_NB[:, : 4 * _num_scales(width)].view(torch.float32)
            codes_NH = from_NB[:, start : start + width].view(torch.float8_e4m3fn)
            return codes_NH.float() * _by_element(scales_NG, width)


def _to_fp8(rows_NH: Tensor) -> tuple[Tensor, Tensor]:
    width = rows_NH.shape[1]
    none_NH = rows_NH.isnan()
    sizes_NH = torch.where(none_NH, 0.0, rows_NH.abs())
    padding = _num_scales(width) * FP8_SCALED - width
    sizes_NGS = torch.nn.functional.pad(sizes_NH, (0, padding)).unflatten(1, (-1, FP8_SCALED))
    scales_NG = (sizes_NGS.amax(-1) / FP8_LARGEST).clamp(min=SMALLEST_SCALE)
    scaled_NH = rows_NH * _by_element(1.0 / scales_NG, width)
    codes_NH = scaled_NH.clamp(-FP8_LARGEST, FP8_LARGEST).to(torch.float8_e4m3fn).view(torch.uint8)
    return scales_NG, torch.where(scaled_NH.isnan(), NOT_A_NUMBER_FP8, codes_NH)


def _by_element(scales_NG: Tensor, width: int) -> Tensor:
    return scales_NG.repeat_interleave(FP8_SCALED, 1)[:, :width]


def _num_scales(width: int) -> int:
    return -(-width // FP8_SCALED)


def _scale_bytes(width: int) -> int:
    return lines(4 * _num_scales(width))
