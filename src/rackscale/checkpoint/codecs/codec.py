"""The one interface of all formats.

A codec answers four questions about a logical tensor: which tensors of the files it is made of, what
these must look like, what it is in numbers, and what it is in packed form. The first two are asked when a
checkpoint is opened, from headers alone and without torch; the others when weights are loaded.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple, Protocol

from rackscale.checkpoint.codecs.packed import Packed
from rackscale.checkpoint.roles import Source
from rackscale.core import SpecError

if TYPE_CHECKING:
    from torch import Tensor

FP32 = frozenset({"F32"})
UINT8 = frozenset({"U8"})


class Part(NamedTuple):
    """One tensor of the files. role: what it is to the codec ("weight", "scale", ...). dtypes: those
    that it may have, as safetensors spells them. A shape of () may be (1,) in the files. optional: the
    tensor may be absent."""

    role: str
    tensor: str
    shape: tuple[int, ...]
    dtypes: frozenset[str]
    optional: bool = False


Parts = Mapping[str, "Tensor"]


class Codec(Protocol):
    """A format, without state. parts: what `parts` lists of the source, by role, optional ones if there."""

    def parts(self, source: Source) -> tuple[Part, ...]:
        """What the source's tensor is made of. Raises SpecError where the format cannot hold the shape."""
        ...

    def decode(self, parts: Parts, source: Source) -> "Tensor":
        """What the source selects, exactly; fp32 where the format is packed.
        Raises SpecError where the content is invalid (a scale that is not finite)."""
        ...

    def packed(self, parts: Parts, source: Source) -> Packed | None:
        """What the source selects in packed form, or None where the format has none. Raises as `decode`."""
        ...


class Scheme(Protocol):
    """A checkpoint's formats: the codec of each of its tensors."""

    def codec(self, tensor: str, /) -> Codec:
        """The codec of a logical tensor ("model.layers.0.mlp.up_proj.weight")."""
        ...


def beside(weight: str, name: str) -> str:
    """The name of what lies beside a weight: "a.weight_scale" beside "a.weight"."""
    return weight.removesuffix("weight") + name


def rows_and_columns(source: Source, group: int, name: str) -> tuple[int, int]:
    """The matrix's sizes. Raises SpecError where it is no matrix, or its columns are no whole groups."""
    if len(source.shape) != 2 or source.shape[1] % group:
        raise SpecError(
            f"tensor {source.tensor!r} is of shape {list(source.shape)} and packed as {name}",
            hint=f"{name} is for matrices whose columns are a multiple of {group}",
        )
    return source.shape[0], source.shape[1]


def bad_scale(tensor: str, what: str) -> SpecError:
    """The error for a scale that no writer may write."""
    return SpecError(f"{tensor!r} {what}", hint="the file is damaged, or was written wrongly; get another")
