"""A matrix in packed form, the same for all flavours of its format."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


class Format(StrEnum):
    """What the codes and scales of a packed matrix mean."""

    NVFP4 = "nvfp4"
    INT4 = "int4-g32"
    MXFP4 = "mxfp4"
    FP8 = "fp8-128x128"


@dataclass(frozen=True, kw_only=True, slots=True)
class Packed:
    """A matrix [N, K]: views of the checkpoint's files wherever they can be, and not to be written to.

    codes: uint8. [N, K / 2] of 4-bit codes, the even column in the low nibble; fp8: [N, K] of E4M3 bits.
    Rows may lie apart, columns do not. INT4 is offset binary: nibble - 8.
    scales: nvfp4: uint8 [N, K / 16], E4M3 bits. int4: bf16 [N, K / 32]. mxfp4: uint8 [N, K / 32], the
    exponent + 127. fp8: fp32 [ceil(N / 128), ceil(K / 128)]. All finite and not negative.
    tensor_scale: multiplies everything, above 0; 1 where the format has none.
    input_scale: the largest activation / 2688, as ModelOpt has it; None where the files do not say.
    """

    format: Format
    codes: "Tensor" = field(repr=False)
    scales: "Tensor" = field(repr=False)
    tensor_scale: float = 1.0
    input_scale: float | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """N and K."""
        rows, columns = self.codes.shape
        return rows, columns if self.format == Format.FP8 else 2 * columns
