"""The one interface of all formats.

A codec answers three questions about a logical tensor: which tensors of the files it is made of, what
these must look like, and what it is in numbers. The first two are asked when a checkpoint is opened, from
headers alone and without torch; the last one when weights are loaded. A kernel that computes on the packed
form takes the parts as they are, through `Checkpoint.parts`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """One tensor of the files. role: what it is to the codec ("weight", "scale", ...). dtypes: those
    that it may have, as safetensors spells them."""

    role: str
    tensor: str
    shape: tuple[int, ...]
    dtypes: frozenset[str]


class Codec(Protocol):
    """A format, stateless but for what config.json says of it."""

    def parts(self, tensor: str, shape: tuple[int, ...]) -> tuple[Part, ...]:
        """What the logical tensor of that name and shape is made of."""
        ...

    def decode(self, parts: Mapping[str, "Tensor"]) -> "Tensor":
        """The logical tensor, of the shape that was asked for. parts: by their role.
        Raises SpecError where the content is invalid (a scale that is not finite)."""
        ...
