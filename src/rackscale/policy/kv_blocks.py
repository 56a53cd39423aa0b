"""Who owns which block of one rank's KV cache.

A block is in one of three states: owned (by one sequence or, sharing a prefix, by several), cached (owned
by none, but the prefix index knows what it holds, so it may be owned again), or free. Blocks are taken from
the free ones first and then from the cached ones, the least recently used first.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from rackscale.core import BlockId, BoolColumn, IntColumn, column
from rackscale.policy.prefix_index import BlockHash, PrefixIndex


class KvBlocks:
    """The blocks 0 .. num_blocks - 1, all free at first. forgotten: see `PrefixIndex`."""

    def __init__(self, num_blocks: int, forgotten: Callable[[BlockHash], None] | None = None) -> None:
        self.num_blocks = num_blocks
        self.index = PrefixIndex(forgotten)
        self._num_owners = np.zeros(num_blocks, dtype=np.int32)
        self._free = np.arange(num_blocks - 1, -1, -1, dtype=np.int32)  # a stack
        self._num_free = num_blocks
        self._cached: OrderedDict[BlockId, None] = OrderedDict()

    @property
    def num_available(self) -> int:
        """How many blocks can be taken."""
        return self._num_free + len(self._cached)

    @property
    def num_owned(self) -> int:
        return self.num_blocks - self.num_available

    def take(self, count: int) -> IntColumn:
        """Own `count` blocks that nobody owns; their content is void. At most `num_available`."""
        while self._num_free < count:
            block, _ = self._cached.popitem(last=False)
            self.index.forget(block)
            self._push(block)
        self._num_free -= count
        taken = self._free[self._num_free : self._num_free + count][::-1].copy()
        self._num_owners[taken] = 1
        return taken

    def take_settled(self, count: int, settled: BoolColumn) -> IntColumn | None:
        """The same, of those blocks alone that are `settled` [num_blocks]; None where there are not so
        many."""
        free = self._free[: self._num_free]
        taken = free[settled[free]][-count:] if count else free[:0]
        evicted = [block for block in self._cached if settled[block]][: count - len(taken)]
        if len(taken) + len(evicted) < count:
            return None
        for block in evicted:
            del self._cached[block]
            self.index.forget(block)
            self._push(block)
        blocks = np.concatenate((taken, column(evicted)))
        self.own(blocks)
        return blocks

    def own(self, blocks: IntColumn) -> None:
        """Own these very blocks, which are free."""
        free = self._free[: self._num_free]
        kept = free[~np.isin(free, blocks)]
        self._num_free = len(kept)
        self._free[: self._num_free] = kept
        self._num_owners[blocks] = 1

    def share(self, blocks: Sequence[BlockId]) -> None:
        """Own blocks that the index knows, one owner more each."""
        for block in blocks:
            self._cached.pop(block, None)
        self._num_owners[column(blocks)] += 1

    def num_cached(self, blocks: Sequence[BlockId]) -> int:
        """How many of the blocks nobody owns: sharing them makes so many fewer available."""
        return sum(block in self._cached for block in blocks)

    def release(self, blocks: IntColumn) -> None:
        """Give up one ownership of each block of a sequence, given from its start.

        The end of a chain is worth nothing without its start, so it is the first to be evicted.
        """
        self._num_owners[blocks] -= 1
        for block in blocks[self._num_owners[blocks] == 0][::-1].tolist():
            if block in self.index:
                self._cached[block] = None
            else:
                self._push(block)

    def _push(self, block: int) -> None:
        self._free[self._num_free] = block
        self._num_free += 1

    def check(self, owned: Iterable[BlockId]) -> None:
        """Assert that exactly these are owned, once for each time they are named."""
        expected = np.bincount(column(owned), minlength=self.num_blocks)
        assert (self._num_owners == expected).all(), "a block has an owner too many or too few"
        free = set(self._free[: self._num_free].tolist())
        cached = set(self._cached)
        assert len(free) == self._num_free, "a block is free twice"
        assert not free & cached, "a block is both free and cached"
        assert all(expected[list(free | cached)] == 0), "an owned block may be taken"
        assert len(free) + len(cached) + int((expected > 0).sum()) == self.num_blocks, "a leak"
        assert all(block in self.index for block in cached), "a cached block has no name"
        assert not any(block in self.index for block in free), "a free block has a name"
