"""What steps cost, from steps."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rackscale.policy import StepCosts


def fitted(pairs):
    costs = StepCosts()
    for tokens, seconds in pairs:
        costs.add(tokens, seconds)
    return costs


def test_nothing_is_known_of_nothing():
    costs = StepCosts()
    assert not costs.known
    assert costs.base_s == costs.per_token_s == 0


def test_steps_alike_say_what_a_step_costs_and_nothing_of_a_token():
    costs = fitted([(0, 0.002)] * 20)
    assert not costs.known
    assert costs.base_s == pytest.approx(0.002)
    assert costs.per_token_s == 0


def test_steps_with_as_many_tokens_each_are_for_these():
    costs = fitted([(100, 0.2)] * 20)
    assert not costs.known
    assert costs.per_token_s == pytest.approx(0.002)
    assert costs.base_s == pytest.approx(0.0)


def test_a_few_steps_say_nothing():
    assert not fitted([(0, 0.002), (100, 0.012)]).known


@given(
    base_s=st.floats(1e-4, 1.0),
    per_token_s=st.floats(1e-6, 1e-2),
    tokens=st.lists(st.integers(0, 512), min_size=8, max_size=40).filter(lambda some: len(set(some)) > 1),
)
def test_a_line_is_found(base_s, per_token_s, tokens):
    costs = fitted([(count, base_s + count * per_token_s) for count in tokens])
    assert costs.known
    assert costs.per_token_s == pytest.approx(per_token_s, rel=1e-3, abs=1e-9)
    assert costs.base_s == pytest.approx(base_s, rel=1e-3, abs=1e-6)


def test_new_steps_count_more_than_old_ones():
    costs = fitted([(0, 1.0), (100, 2.0)] * 50 + [(0, 0.1), (100, 0.2)] * 1000)
    assert costs.base_s == pytest.approx(0.1, rel=0.05)


def test_neither_number_is_negative():
    costs = fitted([(0, 2.0), (100, 1.0)] * 10)
    assert costs.per_token_s == 0
    assert fitted([(10, 0.0), (100, 10.0)] * 10).base_s == 0
