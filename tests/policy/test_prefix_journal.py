"""What is told of several ranks' caches to who has not seen them."""

from rackscale.core import column
from rackscale.policy import (
    ROOT,
    BlockRemoved,
    BlockStored,
    KvBlocks,
    PrefixIndex,
    PrefixJournal,
    block_hashes,
)

A, B, C = block_hashes(column(range(6)), 2)


def stored(name, parent, *tokens):
    return BlockStored(name=name, parent=parent, tokens=tokens)


def test_changes_are_taken_once_and_in_order():
    journal = PrefixJournal()
    assert journal.take() == ()
    journal.store(A, ROOT, (0, 1))
    journal.store(B, A, (2, 3))
    journal.remove(B)
    assert journal.take() == (stored(A, ROOT, 0, 1), stored(B, A, 2, 3), BlockRemoved(name=B))
    assert journal.take() == ()


def test_a_block_of_two_ranks_is_there_until_both_have_forgotten_it():
    journal = PrefixJournal()
    journal.store(A, ROOT, (0, 1))
    journal.store(A, ROOT, (0, 1))
    journal.remove(A)
    assert journal.take() == (stored(A, ROOT, 0, 1),)
    journal.remove(A)
    assert journal.take() == (BlockRemoved(name=A),)


def test_what_does_not_follow_anything_that_was_told_is_not_told():
    journal = PrefixJournal()
    journal.store(C, B, (4, 5))
    journal.remove(C)
    assert journal.take() == ()


def test_an_orphan_is_told_when_another_rank_has_it_with_its_parents():
    journal = PrefixJournal()
    journal.store(B, A, (2, 3))
    journal.store(A, ROOT, (0, 1))
    journal.store(B, A, (2, 3))
    assert journal.take() == (stored(A, ROOT, 0, 1), stored(B, A, 2, 3))
    journal.remove(B)
    assert journal.take() == ()


def test_an_index_says_which_names_are_new_and_which_are_forgotten():
    forgotten = []
    index = PrefixIndex(forgotten.append)
    assert index.insert([A, B], [7, 3]) == [0, 1]
    assert index.insert([A, B, C], [1, 2, 4]) == [2]
    index.forget(3)
    assert forgotten == [B]
    index.forget_all()
    assert forgotten == [B, A, C]
    assert index.longest_prefix([A]) == []


def test_blocks_tell_what_they_evict():
    forgotten = []
    blocks = KvBlocks(2, forgotten.append)
    taken = blocks.take(2)
    blocks.index.insert([A, B], taken.tolist())
    blocks.release(taken)
    blocks.take(1)
    assert forgotten == [B]
