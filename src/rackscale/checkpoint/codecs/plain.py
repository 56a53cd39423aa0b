"""fp32, bf16 and fp16: the tensor as it is."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from rackscale.checkpoint.codecs.codec import Part

if TYPE_CHECKING:
    from torch import Tensor

DTYPES = frozenset({"F32", "BF16", "F16"})


class Plain:
    """No packing and no scales."""

    def parts(self, tensor: str, shape: tuple[int, ...]) -> tuple[Part, ...]:
        """The tensor itself."""
        return (Part(role="weight", tensor=tensor, shape=shape, dtypes=DTYPES),)

    def decode(self, parts: Mapping[str, "Tensor"]) -> "Tensor":
        """The tensor itself, in the dtype that it has."""
        return parts["weight"]
