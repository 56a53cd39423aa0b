"""What the two ends of a network transfer agree on.

The source calls: it counts one up in the destination's store, and leaves there who it is. So the two make a
group of their own, a pair. Then each move is a header, the slots at the destination, each layer's rows as
bytes, and an acknowledgement back when all of it is in the cache.
"""

from msgspec import Struct

from rackscale.core import GroupId, RankId

CALLS = "calls"
SOURCE, DESTINATION = 0, 1  # in a pair
HEADER, SLOTS, LAYER, DONE = range(4)  # tags
HEADER_WORDS = 4  # the step, how many slots, from which head to which, as the destination counts
ALL_HEADS = (-1, -1)


class Caller(Struct, frozen=True, kw_only=True):
    """Who pushes. incarnation: which life of its group."""

    group: GroupId
    rank: RankId
    incarnation: int


def call_key(number: int) -> str:
    """Where in the store a call says who it is."""
    return f"call/{number}"


def pair_name(number: int) -> str:
    """The group of a call's two ends."""
    return f"pair/{number}"
