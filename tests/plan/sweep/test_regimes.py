"""Exponents and knees of curves whose laws are known."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rackscale.plan.sweep.regimes import regimes

exponents = st.floats(-2, 2)


@settings(max_examples=10)
@given(exponents, st.integers(3, 12))
def test_one_law(exponent, points):
    x = 2.0 ** np.arange(points)
    (found,) = regimes(x, 7 * x**exponent)
    assert found.exponent == pytest.approx(exponent, abs=1e-6)
    assert (found.first, found.last) == (x[0], x[-1])


def test_the_knee_of_two_laws():
    x = 2.0 ** np.arange(10)
    y = np.where(x <= 32, x**0.8, 32**0.8 * (x / 32) ** 0.1)
    first, second = regimes(x, y)
    assert first.exponent == pytest.approx(0.8, abs=1e-6)
    assert second.exponent == pytest.approx(0.1, abs=1e-6)
    assert first.last == second.first == 32


def test_two_knees():
    x = 2.0 ** np.arange(12)
    y = np.minimum(np.minimum(x, 16.0), 16 * (256 / x) ** 0.5)
    found = regimes(x, y)
    assert [round(regime.exponent, 3) for regime in found] == [1, 0, -0.5]
    assert [regime.last for regime in found] == [16, 256, 2048]


def test_noise_is_no_knee_and_widens_the_interval():
    x = 2.0 ** np.arange(12)
    noise = np.random.default_rng(3).normal(0, 0.1, len(x))
    (found,) = regimes(x, x**0.5 * np.exp(noise))
    assert found.low < 0.5 < found.high
    assert 0.01 < found.high - found.low < 0.2


def test_intervals_hold_the_exponent_nine_times_of_ten():
    x = 2.0 ** np.arange(10)
    random = np.random.default_rng(4)
    inside = []
    for _ in range(150):
        found = regimes(x, x**0.5 * np.exp(random.normal(0, 0.05, len(x))))
        inside.append(found[0].low <= 0.5 <= found[0].high)
    assert np.mean(inside) > 0.8


def test_knees_are_seldom_found_where_there_are_none():
    x = 2.0 ** np.arange(8)
    random = np.random.default_rng(5)
    found = [len(regimes(x, x**0.5 * np.exp(random.normal(0, 0.05, len(x))))) for _ in range(40)]
    assert np.mean(np.array(found) > 1) < 0.15


@pytest.mark.parametrize("points", [0, 1, 2])
def test_too_few_points_have_no_law(points):
    assert regimes(range(1, points + 1), range(1, points + 1)) == ()
