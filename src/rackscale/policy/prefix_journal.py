"""What the ranks of a worker hold, for who chooses between workers.

Each rank has a prefix index of its own. Who chooses between workers asks only whether a worker has a prefix,
so a name is told when the first of its ranks knows it, and again when the last one has forgotten it.
"""

from collections import Counter

from msgspec import Struct

from rackscale.core import TokenId
from rackscale.policy.prefix_index import ROOT, BlockHash


class BlockStored(Struct, frozen=True, kw_only=True, tag=True):
    """A block is there from now on. parent: the name before it, or ROOT. tokens: of this block alone."""

    name: BlockHash
    parent: BlockHash
    tokens: tuple[TokenId, ...]


class BlockRemoved(Struct, frozen=True, kw_only=True, tag=True):
    """A block that was told as stored is there no more."""

    name: BlockHash


BlockChange = BlockStored | BlockRemoved


class PrefixJournal:
    """Changes in the order in which they happened, until they are taken.

    A block whose parent is not told is of no use to who reads this from the first token on, and not told.
    """

    def __init__(self) -> None:
        self._num_holders: Counter[BlockHash] = Counter()
        self._told: set[BlockHash] = set()
        self._changes: list[BlockChange] = []

    def store(self, name: BlockHash, parent: BlockHash, tokens: tuple[TokenId, ...]) -> None:
        """A rank knows a name that it did not know."""
        self._num_holders[name] += 1
        if name not in self._told and (parent == ROOT or parent in self._told):
            self._told.add(name)
            self._changes.append(BlockStored(name=name, parent=parent, tokens=tokens))

    def remove(self, name: BlockHash) -> None:
        """A rank that knew the name has forgotten it."""
        self._num_holders[name] -= 1
        if self._num_holders[name]:
            return
        del self._num_holders[name]
        if name in self._told:
            self._told.remove(name)
            self._changes.append(BlockRemoved(name=name))

    def take(self) -> tuple[BlockChange, ...]:
        """What has changed since the last time."""
        if not self._changes:
            return ()
        changes, self._changes = tuple(self._changes), []
        return changes
