"""fp32, bf16 and fp16: the tensor as it is."""

from typing import TYPE_CHECKING

from rackscale.checkpoint.codecs.codec import Part, Parts
from rackscale.checkpoint.roles import Source

if TYPE_CHECKING:
    from torch import Tensor

DTYPES = frozenset({"F32", "BF16", "F16"})


class Plain:
    """No packing and no scales."""

    def parts(self, source: Source) -> tuple[Part, ...]:
        """The tensor itself."""
        return (Part("weight", source.tensor, source.shape, DTYPES),)

    def decode(self, parts: Parts, source: Source) -> "Tensor":
        """The tensor itself, in the dtype that it has."""
        tensor = parts["weight"]
        if source.expert is not None:
            tensor = tensor[source.expert]
        if source.columns != "all":
            tensor = tensor[..., 0 if source.columns == "even" else 1 :: 2]
        return tensor.mT if source.transposed else tensor

    def packed(self, parts: Parts, source: Source) -> None:
        """There is no such form."""
