"""FP8 in blocks of 128 x 128: DeepSeek-V3 and R1, Kimi K2.

weight e4m3 [N, K] and a scale for each block, [ceil(N / 128), ceil(K / 128)]. A value is the weight times
its block's scale, whose name says "inverse" and which multiplies all the same. Blocks at the edges are
smaller. Source: README_WEIGHTS.md of deepseek-ai/DeepSeek-V3.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rackscale.checkpoint.codecs.codec import Part, Parts, beside, rows_and_columns
from rackscale.checkpoint.codecs.nvfp4_modelopt import E4M3
from rackscale.checkpoint.codecs.packed import Format, Packed
from rackscale.checkpoint.codecs.scales import as_bytes, check_floats
from rackscale.checkpoint.roles import Source

if TYPE_CHECKING:
    from torch import Tensor

BLOCK = 128
SCALES = frozenset({"F32", "BF16", "F8_E8M0"})  # the last one: DeepSeek's scale_fmt "ue8m0"


@dataclass(frozen=True, slots=True)
class Fp8Blocks:
    """See the module. scale: what the scales are called beside the weight."""

    scale: str = "weight_scale_inv"

    def parts(self, source: Source) -> tuple[Part, ...]:
        """Weights and scales of blocks."""
        rows, columns = rows_and_columns(source, 1, Format.FP8)
        blocks = (-(-rows // BLOCK), -(-columns // BLOCK))
        return (
            Part("weight", source.tensor, (rows, columns), E4M3),
            Part("scale", beside(source.tensor, self.scale), blocks, SCALES),
        )

    def decode(self, parts: Parts, source: Source) -> "Tensor":
        """fp32."""
        from rackscale.checkpoint.numerics import fp8  # noqa: PLC0415 (loads torch)

        return fp8.decode(parts["weight"], self.packed(parts, source).scales)

    def packed(self, parts: Parts, source: Source) -> Packed:
        """The bits of the weights, and the scales in fp32."""
        name = beside(source.tensor, self.scale)
        scales = check_floats(parts["scale"].float(), name)
        return Packed(format=Format.FP8, codes=as_bytes(parts["weight"]), scales=scales)
