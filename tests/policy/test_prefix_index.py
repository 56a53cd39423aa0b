from hypothesis import given
from hypothesis import strategies as st

from rackscale.core import column
from rackscale.policy import ROOT, PrefixIndex, block_hashes

TOKENS = st.lists(st.integers(0, 2), max_size=20)


def test_only_full_blocks_have_names():
    assert len(block_hashes(column(range(3)), 4)) == 0
    assert len(block_hashes(column(range(11)), 4)) == 2


def test_a_name_says_all_that_came_before():
    (_, second) = block_hashes(column([1, 1, 2, 2]), 2)
    (_, other) = block_hashes(column([3, 3, 2, 2]), 2)
    assert second != other


@given(first=TOKENS, second=TOKENS)
def test_equal_names_mean_equal_prefixes(first, second):
    names, others = block_hashes(column(first), 3), block_hashes(column(second), 3)
    for at, (name, other) in enumerate(zip(names, others, strict=False)):
        end = 3 * (at + 1)
        assert (name == other) == (first[:end] == second[:end])


@given(tokens=TOKENS, cut=st.integers(0, 6))
def test_a_chain_may_be_named_in_parts(tokens, cut):
    whole = block_hashes(column(tokens), 3)
    start = whole[:cut]
    rest = block_hashes(column(tokens[3 * len(start) :]), 3, start[-1] if start else ROOT)
    assert start + rest == whole


def test_the_longest_known_prefix():
    names = block_hashes(column(range(12)), 4)
    index = PrefixIndex()
    index.insert(names[:2], [7, 3])
    assert index.longest_prefix(names) == [7, 3]
    index.forget(3)
    assert index.longest_prefix(names) == [7]
    index.insert(names[1:2], [5])
    index.forget(7)
    assert index.longest_prefix(names) == []
    assert 5 in index


def test_a_known_name_keeps_its_block():
    (name,) = block_hashes(column(range(4)), 4)
    index = PrefixIndex()
    index.insert([name], [1])
    index.insert([name], [2])
    assert index.longest_prefix([name]) == [1]
    assert 2 not in index
