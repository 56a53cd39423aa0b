"""Which host gets which ranks."""

from itertools import chain

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rackscale.core import SpecError
from rackscale.serve.layout import assign
from rackscale.specs import GroupSpec


def groups(*widths):
    return [
        GroupSpec(num_ranks=width, num_blocks=8, max_running=2, max_batched_tokens=16) for width in widths
    ]


def test_one_host_has_all():
    assert assign(groups(1, 2), {"a": None}) == {"a": ((0, 0), (1, 0), (1, 1))}


def test_as_many_groups_as_hosts():
    assert assign(groups(1, 3), {"b": None, "a": None}) == {
        "a": ((0, 0),),
        "b": ((1, 0), (1, 1), (1, 2)),
    }


def test_a_wide_group_goes_over_several_hosts():
    assert assign(groups(4), {"a": 2, "b": 2}) == {"a": ((0, 0), (0, 1)), "b": ((0, 2), (0, 3))}


def test_a_small_host_leaves_more_to_the_next():
    assert assign(groups(3), {"a": 1, "b": None}) == {"a": ((0, 0),), "b": ((0, 1), (0, 2))}
    assert assign(groups(3), {"a": None, "b": 1}) == {"a": ((0, 0), (0, 1)), "b": ((0, 2),)}


def test_no_room():
    with pytest.raises(SpecError, match="3 ranks do not fit on hosts that may have 2"):
        assign(groups(3), {"a": 1, "b": 1})


@given(
    widths=st.lists(st.integers(1, 5), min_size=1, max_size=4),
    capacities=st.dictionaries(
        st.text("abcdef", min_size=1, max_size=2), st.none() | st.integers(0, 6), min_size=1, max_size=5
    ),
)
def test_each_rank_is_on_one_host_and_no_host_has_too_many(widths, capacities):
    num_ranks = sum(widths)
    room = sum(num_ranks if limit is None else limit for limit in capacities.values())
    if room < num_ranks:
        with pytest.raises(SpecError):
            assign(groups(*widths), capacities)
        return
    assigned = assign(groups(*widths), capacities)
    assert sorted(chain.from_iterable(assigned.values())) == [
        (group, rank) for group, width in enumerate(widths) for rank in range(width)
    ]
    assert all(limit is None or len(assigned[name]) <= limit for name, limit in capacities.items())
