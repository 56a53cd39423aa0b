"""In what format rows travel between ranks."""

from enum import StrEnum


class Wire(StrEnum):
    """fp32 loses nothing. fp8: e4m3 with one fp32 scale for every 128 elements, the largest at 448."""

    FP32 = "fp32"
    BF16 = "bf16"
    FP8 = "fp8"


WIRE_NUMBERS = {Wire.FP32: 0, Wire.BF16: 1, Wire.FP8: 2}
FP8_LARGEST = 448.0
FP8_SCALED = 128
