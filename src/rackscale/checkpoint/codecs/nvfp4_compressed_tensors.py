"""NVFP4 as compressed-tensors packs it (nvfp4-pack-quantized): vLLM's llm-compressor writes it.

weight_packed uint8 [N, K / 2], weight_scale e4m3 [N, K / 16], weight_global_scale and input_global_scale
fp32: reciprocals of ModelOpt's. A value is e2m1(code) * (weight_scale / weight_global_scale), in fp32.
"""

from typing import TYPE_CHECKING

from rackscale.checkpoint.codecs.codec import FP32, UINT8, Part, Parts, beside, rows_and_columns
from rackscale.checkpoint.codecs.nvfp4_modelopt import BLOCK, E4M3
from rackscale.checkpoint.codecs.packed import Format, Packed
from rackscale.checkpoint.codecs.scales import check_e4m3, reciprocal
from rackscale.checkpoint.roles import Source

if TYPE_CHECKING:
    from torch import Tensor


class Nvfp4CompressedTensors:
    """See the module."""

    def parts(self, source: Source) -> tuple[Part, ...]:
        """Codes, scales of blocks, the tensor's scale; the scale of its inputs if it was measured."""
        rows, columns = rows_and_columns(source, BLOCK, Format.NVFP4)
        return (
            Part("weight", beside(source.tensor, "weight_packed"), (rows, columns // 2), UINT8),
            Part("scale", beside(source.tensor, "weight_scale"), (rows, columns // BLOCK), E4M3),
            Part("tensor_scale", beside(source.tensor, "weight_global_scale"), (), FP32),
            Part("input_scale", beside(source.tensor, "input_global_scale"), (), FP32, optional=True),
        )

    def decode(self, parts: Parts, source: Source) -> "Tensor":
        """fp32."""
        from rackscale.checkpoint.numerics import nvfp4  # noqa: PLC0415 (loads torch)

        packed = self.packed(parts, source)
        return nvfp4.decode_reciprocal(packed.codes, packed.scales, parts["tensor_scale"])

    def packed(self, parts: Parts, source: Source) -> Packed:
        """The codes and scales as they are in the files. tensor_scale is the reciprocal in double precision:
        what is multiplied by it and rounded to fp32 is what the division gives."""
        inputs = parts.get("input_scale")
        return Packed(
            format=Format.NVFP4,
            codes=parts["weight"],
            scales=check_e4m3(parts["scale"], beside(source.tensor, "weight_scale")),
            tensor_scale=reciprocal(parts["tensor_scale"], beside(source.tensor, "weight_global_scale")),
            input_scale=None
            if inputs is None
            else reciprocal(inputs, beside(source.tensor, "input_global_scale")),
        )
