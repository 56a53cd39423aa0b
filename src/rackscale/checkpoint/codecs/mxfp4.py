"""MXFP4: E2M1 codes in blocks of 32 with a power of two each (OCP Microscaling Formats 1.0).

gpt-oss fuses the experts of a layer: *_blocks uint8 [E, N, K / 32, 16] and *_scales uint8 [E, N, K / 32],
where the plain form of the same tensor is [E, K, N]; gate and up are every other row. compressed-tensors
has weight_packed uint8 [N, K / 2] and weight_scale uint8 [N, K / 32] (mxfp4-pack-quantized).
A value is e2m1(code) * 2 ** (scale - 127).
"""

from typing import TYPE_CHECKING

from rackscale.checkpoint.codecs.codec import UINT8, Part, Parts, beside, rows_and_columns
from rackscale.checkpoint.codecs.packed import Format, Packed
from rackscale.checkpoint.codecs.scales import check_e8m0
from rackscale.checkpoint.roles import Source
from rackscale.core import SpecError

if TYPE_CHECKING:
    from torch import Tensor

BLOCK = 32


class Mxfp4:
    """A matrix, as compressed-tensors has it."""

    def parts(self, source: Source) -> tuple[Part, ...]:
        """Codes and exponents of blocks."""
        rows, columns = rows_and_columns(source, BLOCK, Format.MXFP4)
        return (
            Part("weight", beside(source.tensor, "weight_packed"), (rows, columns // 2), UINT8),
            Part("scale", beside(source.tensor, "weight_scale"), (rows, columns // BLOCK), UINT8),
        )

    def decode(self, parts: Parts, source: Source) -> "Tensor":
        """fp32."""
        return _decode(self.packed(parts, source))

    def packed(self, parts: Parts, source: Source) -> Packed:
        """The codes and exponents as they are in the files."""
        scales = check_e8m0(parts["scale"], beside(source.tensor, "weight_scale"))
        return Packed(format=Format.MXFP4, codes=parts["weight"], scales=scales)


class FusedMxfp4:
    """The experts of a layer in one tensor, as gpt-oss has them."""

    def parts(self, source: Source) -> tuple[Part, ...]:
        """Codes and exponents of blocks, of all experts."""
        if len(source.shape) != 3 or not source.transposed or source.shape[1] % BLOCK:
            raise SpecError(
                f"tensor {source.tensor!r} is of shape {list(source.shape)} and packed as {Format.MXFP4}",
                hint=f"this form is for fused experts whose inputs are a multiple of {BLOCK}",
            )
        experts, columns, rows = source.shape
        blocks = columns // BLOCK
        return (
            Part("weight", f"{source.tensor}_blocks", (experts, rows, blocks, BLOCK // 2), UINT8),
            Part("scale", f"{source.tensor}_scales", (experts, rows, blocks), UINT8),
        )

    def decode(self, parts: Parts, source: Source) -> "Tensor":
        """fp32, of the expert and the half that the source selects."""
        return _decode(self.packed(parts, source))

    def packed(self, parts: Parts, source: Source) -> Packed:
        """Views of the expert's rows; of gate or up alone, every other row."""
        assert source.expert is not None, "fused experts are read one by one"
        first, step = {"all": (0, 1), "even": (0, 2), "odd": (1, 2)}[source.columns]
        codes = parts["weight"][source.expert].flatten(-2)[first::step]
        scales = parts["scale"][source.expert][first::step]
        return Packed(format=Format.MXFP4, codes=codes, scales=check_e8m0(scales, f"{source.tensor}_scales"))


def _decode(packed: Packed) -> "Tensor":
    from rackscale.checkpoint.numerics import mxfp4  # noqa: PLC0415 (loads torch)

    return mxfp4.decode(packed.codes, packed.scales)
