"""Which heads of an attention each rank of a team has: those that share it (`GroupSpec.tp`)."""

from dataclasses import dataclass
from typing import NamedTuple

from rackscale.core import SpecError
from rackscale.specs.model import AttentionSpec, MlaSpec


class Span(NamedTuple):
    """start .. end - 1."""

    start: int
    end: int

    @property
    def size(self) -> int:
        return self.end - self.start

    def scaled(self, width: int) -> "Span":
        """The elements of heads that lie one after the other, `width` each."""
        return Span(self.start * width, self.end * width)

    def moved(self, by: int) -> "Span":
        """The same where something else begins at `by`."""
        return Span(self.start + by, self.end + by)


@dataclass(frozen=True, kw_only=True, slots=True)
class HeadShare:
    """The heads of one member: of queries, and of what the cache holds. Latents, which all queries see, count
    as one head. copy: cached heads that are fewer than members are on several; which of them this is."""

    queries: Span
    cached: Span
    copy: int


def num_cached_heads(attention: AttentionSpec) -> int:
    """Parts of a token's KV that ranks may have without the others."""
    return 1 if isinstance(attention, MlaSpec) else attention.num_kv_heads


def num_kv_copies(attention: AttentionSpec, tp: int) -> int:
    """On how many members of a team each part of the KV is."""
    return max(1, tp // num_cached_heads(attention))


def share_heads(attention: AttentionSpec, tp: int, member: int = 0) -> HeadShare:
    """What a member of a team of `tp` has.

    Raises SpecError where members would differ in how many queries they have, or in how many of them see
    each cached head.
    """
    heads, cached = attention.num_heads, num_cached_heads(attention)
    if heads % tp:
        raise SpecError(
            f"tp {tp} does not divide the model's {heads} attention heads", hint="give a tp that divides them"
        )
    if cached % tp and tp % cached:
        raise SpecError(
            f"tp {tp} and the model's {cached} heads of keys do not divide each other",
            hint=f"give a tp that divides {cached}, or a multiple of it",
        )
    each, copies = max(1, cached // tp), num_kv_copies(attention, tp)
    first = member // copies * each
    return HeadShare(
        queries=Span(member * heads // tp, (member + 1) * heads // tp),
        cached=Span(first, first + each),
        copy=member % copies,
    )
