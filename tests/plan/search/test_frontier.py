"""What no other beats, against the definition."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rackscale.plan.search.frontier import Stairs, nondominated, staircase

numbers = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6), st.integers(0, 6)), max_size=30)


@given(numbers)
def test_nondominated_is_the_definition(rows):
    table = np.array(rows, dtype=float).reshape(-1, 3)
    kept = nondominated(*table.T)
    for number, row in enumerate(table):
        beaten = ((table <= row).all(1) & (table < row).any(1)).any()
        assert (number in kept) == (not beaten and number == np.flatnonzero((table == row).all(1))[0])


@given(numbers)
def test_staircase_is_the_definition(rows):
    table = np.array(rows, dtype=float).reshape(-1, 3)
    cost, value = table[:, 0], table[:, 1]
    kept = staircase(cost, value)
    assert (np.diff(cost[kept]) > 0).all()
    assert (np.diff(value[kept]) > 0).all()
    for own_cost, own_value in zip(cost, value, strict=True):
        assert value[kept][cost[kept] <= own_cost].max() >= own_value


def test_stairs_remember_what_was_reached():
    stairs = Stairs()
    assert stairs.reached(np.array([1.0])) == [-np.inf]
    stairs.add(np.array([2.0, 1.0]), np.array([5.0, 3.0]))
    stairs.add(np.array([3.0]), np.array([4.0]))
    assert stairs.reached(np.array([0.5, 1.0, 1.5, 2.0, 9.0])).tolist() == pytest.approx(
        [-np.inf, 3, 3, 5, 5]
    )
