from hypothesis import given
from hypothesis import strategies as st

from rackscale.policy import Waiting


def queue(*importances):
    waiting = Waiting()
    for number, importance in enumerate(importances):
        waiting.push(f"r{number}", importance, number)
    return waiting


def test_the_most_important_comes_first_then_the_first_pushed():
    assert queue(2.0, 1.0, 2.0).drain() == [1, 0, 2]


def test_peek_takes_nothing():
    waiting = queue(2.0, 1.0)
    assert waiting.peek() == waiting.peek() == 1
    assert len(waiting) == 2
    assert list(waiting) == [0, 1]


def test_an_empty_queue_shows_nothing():
    assert queue().peek() is None


def test_who_left_and_came_back_stands_where_it_belongs_now():
    waiting = queue(1.0, 2.0)
    assert waiting.remove("r0") == 0
    assert "r0" not in waiting
    waiting.push("r0", 3.0, 0)
    assert waiting.drain() == [1, 0]


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.integers(0, 3))))
def test_against_a_sorted_list(steps):
    waiting, model = Waiting(), {}
    for order, (key, importance) in enumerate(steps):
        if key in model:
            assert waiting.remove(key) == key
            del model[key]
        else:
            waiting.push(key, importance, key)
            model[key] = (importance, order)
        assert waiting.peek() == min(model, key=model.__getitem__, default=None)
        assert len(waiting) == len(model)
    assert waiting.drain() == sorted(model, key=model.__getitem__)
