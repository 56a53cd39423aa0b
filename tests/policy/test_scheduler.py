from hypothesis import given
from hypothesis import strategies as st

from rackscale.core import Seconds, column
from rackscale.policy import fill_step, importance


def fill(gaps, budget):
    return fill_step(column(gaps), budget).tolist()


def test_single_tokens_go_before_chunks():
    assert fill([9, 1, 1], 5) == [3, 1, 1]


def test_chunks_go_by_importance():
    assert fill([3, 4, 5], 6) == [3, 3, 0]


def test_what_fits_enters_whole():
    assert fill([3, 1, 2], 6) == [3, 1, 2]


def test_when_even_single_tokens_do_not_fit_the_most_important_go():
    assert fill([1, 7, 1, 1], 2) == [1, 0, 1, 0]


def test_nothing_to_do():
    assert fill([], 4) == []


@given(gaps=st.lists(st.integers(0, 9), max_size=8), budget=st.integers(0, 20))
def test_a_step_is_as_full_as_it_can_be(gaps, budget):
    num_new = fill(gaps, budget)
    assert all(0 <= new <= gap for new, gap in zip(num_new, gaps, strict=True))
    assert sum(num_new) == min(budget, sum(gaps))


def test_priority_is_worth_a_wait_and_no_more():
    late_but_urgent = importance(-1, Seconds(9.0))
    assert late_but_urgent < importance(0, Seconds(0.0)) < importance(-1, Seconds(11.0))
