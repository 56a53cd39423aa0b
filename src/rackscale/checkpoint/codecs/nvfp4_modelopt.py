"""NVFP4 as NVIDIA's ModelOpt exports it.

weight uint8 [N, K / 2], weight_scale e4m3 [N, K / 16], weight_scale_2 and input_scale fp32: a value is
e2m1(code) * (weight_scale * weight_scale_2), the scales multiplied first, in fp32.
"""

from typing import TYPE_CHECKING

from rackscale.checkpoint.codecs.codec import FP32, UINT8, Part, Parts, beside, rows_and_columns
from rackscale.checkpoint.codecs.packed import Format, Packed
from rackscale.checkpoint.codecs.scales import check_e4m3, positive, positive_or_none
from rackscale.checkpoint.roles import Source

if TYPE_CHECKING:
    from torch import Tensor

BLOCK = 16
E4M3 = frozenset({"F8_E4M3"})


class Nvfp4ModelOpt:
    """See the module."""

    def parts(self, source: Source) -> tuple[Part, ...]:
        """Codes, scales of blocks, the tensor's scale; the scale of its inputs if it was measured."""
        rows, columns = rows_and_columns(source, BLOCK, Format.NVFP4)
        return (
            Part("weight", source.tensor, (rows, columns // 2), UINT8),
            Part("scale", beside(source.tensor, "weight_scale"), (rows, columns // BLOCK), E4M3),
            Part("tensor_scale", beside(source.tensor, "weight_scale_2"), (), FP32),
            Part("input_scale", beside(source.tensor, "input_scale"), (), FP32, optional=True),
        )

    def decode(self, parts: Parts, source: Source) -> "Tensor":
        """fp32."""
        from rackscale.checkpoint.numerics import nvfp4  # noqa: PLC0415 (loads torch)

        packed = self.packed(parts, source)
        return nvfp4.decode(packed.codes, packed.scales, parts["tensor_scale"])

    def packed(self, parts: Parts, source: Source) -> Packed:
        """The codes and scales as they are in the files."""
        return Packed(
            format=Format.NVFP4,
            codes=parts["weight"],
            scales=check_e4m3(parts["scale"], beside(source.tensor, "weight_scale")),
            tensor_scale=positive(parts["tensor_scale"], beside(source.tensor, "weight_scale_2")),
            input_scale=positive_or_none(parts.get("input_scale"), beside(source.tensor, "input_scale")),
        )
