import numpy as np
import pytest

from rackscale.core import column
from rackscale.policy import KvBlocks, block_hashes

NAMES = block_hashes(column(range(12)), 4)


def blocks_with_cached(num_blocks=4, num_cached=3):
    """Blocks of which the first hold a chain that nobody owns."""
    blocks = KvBlocks(num_blocks)
    taken = blocks.take(num_cached)
    blocks.index.insert(NAMES[:num_cached], taken.tolist())
    blocks.release(taken)
    return blocks, taken.tolist()


def test_what_is_taken_is_owned_and_what_is_released_is_free():
    blocks = KvBlocks(4)
    taken = blocks.take(3)
    assert len(set(taken.tolist())) == 3
    assert (blocks.num_owned, blocks.num_available) == (3, 1)
    blocks.check(taken.tolist())
    blocks.release(taken)
    assert (blocks.num_owned, blocks.num_available) == (0, 4)
    blocks.check([])


def test_a_shared_block_is_owned_until_its_last_owner_is_gone():
    blocks = KvBlocks(4)
    taken = blocks.take(2)
    blocks.share(taken.tolist())
    blocks.release(taken)
    assert blocks.num_owned == 2
    blocks.release(taken)
    assert blocks.num_owned == 0


def test_a_named_block_stays_known_when_nobody_owns_it():
    blocks, taken = blocks_with_cached()
    assert blocks.num_available == 4
    assert blocks.num_cached(taken) == 3
    assert blocks.index.longest_prefix(NAMES) == taken
    blocks.share(taken)
    assert blocks.num_available == 1
    blocks.check(taken)


def test_free_blocks_go_before_known_ones():
    blocks, taken = blocks_with_cached()
    assert blocks.take(1).tolist()[0] not in taken
    assert blocks.index.longest_prefix(NAMES) == taken


def test_the_end_of_a_chain_is_evicted_before_its_start():
    blocks, taken = blocks_with_cached()
    blocks.take(3)
    assert blocks.index.longest_prefix(NAMES) == taken[:1]


def test_the_least_recently_used_is_evicted_first():
    blocks = KvBlocks(2)
    taken = blocks.take(2)
    old, new = (block_hashes(column([token] * 4), 4) for token in (1, 2))
    blocks.index.insert(old + new, taken.tolist())
    blocks.release(taken[:1])
    blocks.release(taken[1:])
    blocks.share(taken[:1].tolist())
    blocks.release(taken[:1])  # the old one is now the last that was used
    blocks.take(1)
    assert blocks.index.longest_prefix(old) == taken[:1].tolist()
    assert blocks.index.longest_prefix(new) == []


@pytest.mark.parametrize("owned", [[], [0, 0], [0, 1]])
def test_check_finds_a_wrong_owner(owned):
    blocks = KvBlocks(2)
    assert blocks.take(1).tolist() == [0]
    with pytest.raises(AssertionError, match="an owner too many or too few"):
        blocks.check(owned)


def test_check_finds_a_block_released_twice():
    blocks = KvBlocks(2)
    taken = blocks.take(1)
    blocks.release(taken)
    blocks.release(taken)
    with pytest.raises(AssertionError, match="an owner too many or too few"):
        blocks.check([])


def test_only_settled_blocks_are_given_to_others():
    blocks = KvBlocks(6)
    settled = np.array([False, True, True, False, True, True])
    assert blocks.take_settled(5, settled) is None
    assert sorted(blocks.take_settled(3, settled).tolist()) in ([1, 2, 4], [1, 2, 5], [1, 4, 5], [2, 4, 5])
    assert len(blocks.take_settled(0, settled)) == 0
    assert blocks.num_owned == 3
    assert blocks.take_settled(2, settled) is None


def test_settled_blocks_that_are_cached_are_evicted_the_oldest_first():
    blocks = KvBlocks(3)
    own = blocks.take(3)
    blocks.index.insert(NAMES, own.tolist())
    blocks.release(own)  # the last one is evicted first
    assert blocks.take_settled(2, np.array([True, True, False])).tolist() == [1, 0]
    blocks.check([0, 1])
    assert 2 in blocks.index


def test_own_takes_the_very_blocks():
    blocks = KvBlocks(4)
    blocks.own(column([1, 3]))
    blocks.check([1, 3])
    assert sorted(blocks.take(2).tolist()) == [0, 2]
