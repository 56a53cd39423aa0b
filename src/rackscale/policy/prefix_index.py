"""Which blocks already hold a prefix.

A full block is named by the hash of its parent's name and its own tokens, so that equal names mean equal
prefixes from the first token on. The index maps names to blocks, one block a name.
"""

from collections.abc import Callable, Iterable, Sequence
from hashlib import blake2b
from typing import NewType

from rackscale.core import BlockId, IntColumn

BlockHash = NewType("BlockHash", bytes)

ROOT = BlockHash(b"")
DIGEST_BYTES = 16  # a collision among 10^9 blocks has a chance of about 10^-21


def block_hashes(tokens: IntColumn, block_size: int, parent: BlockHash = ROOT) -> list[BlockHash]:
    """The names of the full blocks of `tokens`, which follow the block named `parent`."""
    data = tokens.astype("<i4", copy=False).tobytes()
    stride = block_size * 4
    names = []
    for start in range(0, len(data) - stride + 1, stride):
        digest = blake2b(parent, digest_size=DIGEST_BYTES)
        digest.update(data[start : start + stride])
        parent = BlockHash(digest.digest())
        names.append(parent)
    return names


class PrefixIndex:
    """Names of full blocks, both ways. forgotten: is told each name that the index knew and knows no more."""

    def __init__(self, forgotten: Callable[[BlockHash], None] | None = None) -> None:
        self._forgotten = forgotten
        self._block_of: dict[BlockHash, BlockId] = {}
        self._name_of: dict[BlockId, BlockHash] = {}

    def __contains__(self, block: BlockId) -> bool:
        return block in self._name_of

    def longest_prefix(self, names: Sequence[BlockHash]) -> list[BlockId]:
        """The blocks that hold the longest known prefix of the chain."""
        blocks = []
        for name in names:
            block = self._block_of.get(name)
            if block is None:
                break
            blocks.append(block)
        return blocks

    def insert(self, names: Iterable[BlockHash], blocks: Iterable[BlockId]) -> list[int]:
        """Remember what the blocks hold. A name that is known keeps the block it has.

        Gives the positions of the names that were not known.
        """
        new = []
        for at, (name, block) in enumerate(zip(names, blocks, strict=True)):
            if name not in self._block_of:
                self._block_of[name] = block
                self._name_of[block] = name
                new.append(at)
        return new

    def forget(self, block: BlockId) -> None:
        """The block is about to hold something else."""
        name = self._name_of.pop(block)
        del self._block_of[name]
        if self._forgotten is not None:
            self._forgotten(name)

    def forget_all(self) -> None:
        """Every block is void."""
        for block in list(self._name_of):
            self.forget(block)
