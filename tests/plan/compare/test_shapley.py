"""Shares of a ratio: they add up, equal switches are equal, idle ones are nothing."""

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from rackscale.core import SpecError
from rackscale.plan.compare.shapley import order_weights, shapley

logs = st.floats(-3, 3)
games = st.integers(1, 5).flatmap(lambda n: arrays(np.float64, (1 << n, 2), elements=logs))


@given(games)
def test_shares_add_up_to_the_whole(values):
    np.testing.assert_allclose(shapley(values).sum(0), values[-1] - values[0], atol=1e-9)


@given(st.integers(1, 4), st.data())
def test_means_over_all_orders(switches, data):
    values = data.draw(arrays(np.float64, 1 << switches, elements=logs))
    expected = np.zeros(switches)
    orders = list(permutations(range(switches)))
    for order in orders:
        number = 0
        for one in order:
            expected[one] += (values[number | 1 << one] - values[number]) / len(orders)
            number |= 1 << one
    np.testing.assert_allclose(shapley(values), expected, atol=1e-9)


@given(arrays(np.float64, 8, elements=logs))
def test_equal_switches_have_equal_shares(values):
    values[0b010], values[0b110] = values[0b001], values[0b101]
    first, second, _ = shapley(values)
    assert first == pytest.approx(second, abs=1e-9)


@given(arrays(np.float64, 4, elements=logs))
def test_a_switch_that_does_nothing_has_the_factor_1(values):
    idle = np.concatenate([values, values])
    shares = shapley(idle)
    assert np.exp(shares[2]) == pytest.approx(1.0)
    np.testing.assert_allclose(shares[:2], shapley(values), atol=1e-9)


def test_orders_through_a_set_without_value_do_not_count():
    values = np.array([0.0, np.nan, 1.0, 3.0])
    np.testing.assert_allclose(shapley(values), [2.0, 1.0])


@given(st.integers(2, 4), st.data())
def test_shares_add_up_without_some_sets(switches, data):
    values = data.draw(arrays(np.float64, 1 << switches, elements=logs))
    # An order that is kept whole: switches one after the other.
    kept = {(1 << one) - 1 for one in range(switches + 1)}
    missing = data.draw(st.sets(st.integers(0, (1 << switches) - 1)))
    for number in missing - kept:
        values[number] = np.nan
    assert shapley(values).sum() == pytest.approx(values[-1] - values[0], abs=1e-9)


def test_weights_of_a_switch_add_up_to_one():
    weights = order_weights([True] * 8)
    for one in range(3):
        assert sum(weight for (_, turned), weight in weights.items() if turned == one) == pytest.approx(1)


def test_no_order_remains():
    with pytest.raises(SpecError, match="no order"):
        shapley(np.array([0.0, np.nan, np.nan, 1.0]))


def test_nothing_differs():
    assert shapley(np.array([0.5])).shape == (0,)
