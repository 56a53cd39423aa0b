"""Ranks that share an attention have its heads between them, and pools may share in different numbers."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor

from rackscale.core import GroupId, RankId
from rackscale.specs import AttentionSpec, HeadShare, Span, share_heads


@dataclass(frozen=True, kw_only=True, slots=True)
class KvSplit:
    """How groups divide a token's KV. own: the source's part. tps: `GroupSpec.tp` of each group."""

    attention: AttentionSpec
    own: HeadShare
    tps: Sequence[int]


def ways(
    split: KvSplit | None, seat: tuple[GroupId, RankId]
) -> Iterator[tuple[RankId, Span | None, Span | None]]:
    """The ranks of a seat that this one pushes to, and which heads, as this one and as that one counts them;
    None: all.

    split: None where each rank has all heads; otherwise every member of the destination gets its heads from
    the first member here that has them.
    """
    group, number = seat
    if split is None:
        yield number, None, None
        return
    own, tp = split.own, split.tps[group]
    for member in range(tp):
        there = share_heads(split.attention, tp, member).cached
        common = Span(max(own.cached.start, there.start), min(own.cached.end, there.end))
        if common.size > 0 and own.copy == 0:
            yield RankId(number * tp + member), _within(own.cached, common), _within(there, common)


def only(part: Tensor, heads: Span | None) -> Tensor:
    """Of a layer's tensor, what those heads have."""
    return part if heads is None else part[:, heads.start : heads.end]


def _within(held: Span, part: Span) -> Span | None:
    """Where a part of the held heads is among them; None: it is all."""
    return None if part == held else part.moved(-held.start)
