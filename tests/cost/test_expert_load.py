"""Experts' popularity, those that a step touches, and the slowest rank."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rackscale.cost.expert_load import MAX_SKEW, chances, slowest, touched


@given(st.integers(2, 64), st.data())
def test_chances_sum_to_what_a_token_takes(experts, data):
    top_k = data.draw(st.integers(1, experts - 1))
    skew = data.draw(st.floats(0, MAX_SKEW))
    found = chances(experts, top_k, skew)
    assert found.sum() == pytest.approx(top_k)
    assert found.max() <= 1 + 1e-9
    assert (np.diff(found) <= 1e-12).all()


@pytest.mark.parametrize("skew", [0.0, 0.37, 0.9])
@pytest.mark.parametrize("tokens", [1.0, 3.0, 50.0, 777.0, 1e5])
def test_the_table_agrees_with_the_sum(skew, tokens):
    share = chances(256, 8, skew)
    exact = (1 - (1 - share) ** tokens).sum()
    found = touched(np.array([[tokens]]), 256, 8, np.array([[skew]]))
    assert found[0, 0] == pytest.approx(exact, rel=0.01)


def test_a_part_of_a_token_touches_a_part():
    half = touched(np.array([[0.5]]), 256, 8, np.array([[0.0]]))
    assert half[0, 0] == pytest.approx(4.0)


@given(st.floats(1, 1e5), st.sampled_from([1.0, 8.0, 72.0]), st.floats(0, MAX_SKEW), st.floats(0, 1))
def test_the_slowest_rank_is_never_faster_than_the_mean(tokens, ranks, skew, balance):
    arguments = (np.array([[tokens]]), np.array([ranks]), (256, 8), np.array([[skew]]))
    found = slowest(*arguments, np.array([balance]))
    assert found >= 1
    assert (found == 1) == (ranks == 1)
    assert slowest(*arguments, np.array([1.0])) <= found


def test_a_sum_of_chance_events_deviates_as_simulated():
    """Uniform routing, 2,048 tokens of top-8 over 32 ranks: the largest of 32 binomial sums."""
    rng = np.random.default_rng(0)
    picks = rng.integers(0, 32, size=(300, 2048 * 8))
    loads = np.array([np.bincount(row, minlength=32) for row in picks])
    simulated = (loads.max(1) / loads.mean(1)).mean()
    found = slowest(np.array([[2048.0]]), np.array([32.0]), (256, 8), np.array([[0.0]]), np.array([1.0]))
    assert found[0, 0] - 1 == pytest.approx(simulated - 1, rel=0.35)
