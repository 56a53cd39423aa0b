"""INT4 in groups of 32, symmetric, as compressed-tensors packs it (pack-quantized): Kimi K2 Thinking.

weight_packed int32 [N, K / 8], column 8j + i in bits 4i to 4i + 3 as q + 8; weight_scale bf16 [N, K / 32];
weight_shape, the two numbers N and K. A value is q * weight_scale.
"""

from typing import TYPE_CHECKING

from rackscale.checkpoint.codecs.codec import Part, Parts, beside, rows_and_columns
from rackscale.checkpoint.codecs.packed import Format, Packed
from rackscale.checkpoint.codecs.scales import as_bytes, check_floats
from rackscale.checkpoint.roles import Source
from rackscale.core import SpecError

if TYPE_CHECKING:
    from torch import Tensor

GROUP = 32
CODES_A_WORD = 8
CODES = frozenset({"I32"})
SCALES = frozenset({"BF16"})
SHAPES = frozenset({"I32", "I64"})


class Int4Group32:
    """See the module."""

    def parts(self, source: Source) -> tuple[Part, ...]:
        """Codes, scales of groups, the shape before it was packed."""
        rows, columns = rows_and_columns(source, GROUP, Format.INT4)
        return (
            Part("weight", beside(source.tensor, "weight_packed"), (rows, columns // CODES_A_WORD), CODES),
            Part("scale", beside(source.tensor, "weight_scale"), (rows, columns // GROUP), SCALES),
            Part("shape", beside(source.tensor, "weight_shape"), (2,), SHAPES, optional=True),
        )

    def decode(self, parts: Parts, source: Source) -> "Tensor":
        """fp32."""
        from rackscale.checkpoint.numerics import int4  # noqa: PLC0415 (loads torch)

        packed = self.packed(parts, source)
        return int4.decode(packed.codes, packed.scales)

    def packed(self, parts: Parts, source: Source) -> Packed:
        """The words as bytes (they are little-endian), so that the even column is in the low nibble."""
        shape = parts.get("shape")
        if shape is not None and (said := tuple(shape.tolist())) != source.shape:
            name = beside(source.tensor, "weight_shape")
            raise SpecError(
                f"{name!r} is {list(said)}, and config.json makes it {list(source.shape)}",
                hint="the two are not of one model",
            )
        return Packed(
            format=Format.INT4,
            codes=as_bytes(parts["weight"]),
            scales=check_floats(parts["scale"], beside(source.tensor, "weight_scale")),
        )
