"""Uniform numbers and the inverse of the distribution. All seeds are fixed: nothing here is chance."""

import math

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rackscale.runtime.sampling.draw import draw
from rackscale.runtime.sampling.uniform import stream_key, uniform

NUM_DRAWS = 20_000


def keys(seeds: range) -> np.ndarray:
    return np.array([stream_key(seed) for seed in seeds], np.uint64)


def numbers_of_one_seed(seed: int) -> np.ndarray:
    positions = np.arange(NUM_DRAWS, dtype=np.int32)
    return uniform(np.full(NUM_DRAWS, stream_key(seed), np.uint64), positions)


def numbers_of_one_position(position: int) -> np.ndarray:
    return uniform(keys(range(NUM_DRAWS)), np.full(NUM_DRAWS, position, np.int32))


def test_numbers_are_uniform_over_positions_and_over_seeds() -> None:
    """Kolmogorov-Smirnov; 1.63 / sqrt(n) is the 1 % level."""
    for numbers in (numbers_of_one_seed(0), numbers_of_one_position(9)):
        ordered = np.sort(numbers)
        steps = np.arange(NUM_DRAWS + 1) / NUM_DRAWS
        distance = max(np.max(steps[1:] - ordered), np.max(ordered - steps[:-1]))
        assert distance < 1.63 / math.sqrt(NUM_DRAWS)
        assert numbers.min() >= 0.0
        assert numbers.max() < 1.0


def test_neighbours_are_uncorrelated() -> None:
    """Seeds and positions one apart, and the two together; 4 standard errors."""
    limit = 4 / math.sqrt(NUM_DRAWS)
    for seed in (0, -1, 2**63 - 1):
        here, there = numbers_of_one_seed(seed), numbers_of_one_seed(seed + 1)
        assert abs(np.corrcoef(here, there)[0, 1]) < limit
        assert abs(np.corrcoef(here[:-1], here[1:])[0, 1]) < limit
        assert abs(np.corrcoef(here[:-1], there[1:])[0, 1]) < limit
        assert abs(np.corrcoef(here[1:], there[:-1])[0, 1]) < limit


def test_seeds_of_any_size_have_a_stream() -> None:
    seeds = (0, 1, -1, 2**63 - 1, -(2**63), 2**64 + 5)
    assert len({stream_key(seed) for seed in seeds}) == len(seeds)
    assert stream_key(2**64 + 5) == stream_key(5)


def test_draws_follow_the_weights() -> None:
    """Chi-square over 200 tokens, of which a third have no weight; 5 standard deviations."""
    weights = torch.rand(200, generator=torch.Generator().manual_seed(3))
    weights[::3] = 0.0
    for numbers in (numbers_of_one_seed(42), numbers_of_one_position(7)):
        tokens, drawable = draw(weights.expand(NUM_DRAWS, -1), numbers)
        assert drawable.all()
        counts = np.bincount(tokens, minlength=200)
        expected = (weights.double() / weights.double().sum()).numpy() * NUM_DRAWS
        assert not counts[expected == 0].any()
        freedom = np.count_nonzero(expected) - 1
        inside = expected > 0
        chi = ((counts[inside] - expected[inside]) ** 2 / expected[inside]).sum()
        assert abs(chi - freedom) < 5 * math.sqrt(2 * freedom)


@given(
    st.lists(st.integers(0, 5), min_size=1, max_size=200).filter(any),
    st.integers(0, 2**53 - 1).map(lambda i: i * 2.0**-53),
)
@settings(max_examples=300, deadline=None)
def test_the_draw_inverts_the_running_sum(weights: list[int], number: float) -> None:
    """Whole weights are summed without rounding, so the oracle's answer is the only one."""
    target = number * sum(weights)
    wanted = next(t for t in range(len(weights)) if sum(weights[: t + 1]) > target)
    tokens, drawable = draw(torch.tensor([weights], dtype=torch.float32), np.array([number]))
    assert (tokens.tolist(), drawable.tolist()) == ([wanted], [True])


def test_the_greatest_number_still_draws_a_token_of_weight() -> None:
    weights = torch.rand(64, 1000, generator=torch.Generator().manual_seed(4))
    weights[:, 900:] = 0.0
    tokens, drawable = draw(weights, np.full(64, 1.0 - 2.0**-53))
    assert drawable.all()
    assert (weights[torch.arange(64), torch.from_numpy(tokens).long()] > 0).all()


def test_rows_without_weight_say_so() -> None:
    weights = torch.ones(3, 100)
    weights[0] = 0.0
    weights[2, 50] = torch.nan
    _, drawable = draw(weights, np.full(3, 0.5))
    assert drawable.tolist() == [False, True, False]
