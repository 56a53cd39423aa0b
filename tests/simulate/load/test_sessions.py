from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rackscale.core import SpecError
from rackscale.simulate.load import (
    Arrival,
    Call,
    FixedLengths,
    Pauses,
    Poisson,
    Session,
    Sessions,
    UniformLengths,
)


def sessions(**changes):
    options = {
        "asked": FixedLengths(num_prompt=600, num_output=500),
        "think": Pauses(mean_s=20),
        "tools": FixedLengths(num_prompt=300, num_output=2000),
        "tool_pause": Pauses(mean_s=2),
        "max_tokens": 10**9,
        "system_tokens": 1200,
    }
    return Sessions(**(options | changes))


def drawn(duration_s=100, seed=0, rate_per_s=1, first_block=0, **changes):
    load = Poisson(rate_per_s=rate_per_s)
    kind = sessions(**changes)
    return list(kind.draw(load, duration_s=duration_s, seed=seed, first_block=first_block))


def common(a, b):
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def test_prompts_grow_by_the_answer_and_the_next_question():
    for session in drawn(mean_turns=4):
        assert session.calls[0].num_prompt == 1800
        for before, after in pairwise(session.calls):
            assert after.num_prompt == before.num_prompt + 500 + 600
            assert after.blocks[: len(before.blocks)] == before.blocks


@given(
    seed=st.integers(0, 1000),
    mean_calls=st.floats(1, 6),
    dropped_share=st.floats(0, 1),
    system_tokens=st.integers(0, 3000),
)
def test_ids_are_one_for_each_full_block_and_shared_only_within_a_prefix(
    seed, mean_calls, dropped_share, system_tokens
):
    options = {
        "mean_turns": 3,
        "mean_calls": mean_calls,
        "dropped_share": dropped_share,
        "system_tokens": system_tokens,
    }
    seen = {}
    for index, session in enumerate(drawn(5, seed, first_block=5, **options)):
        for call in session.calls:
            assert len(call.blocks) == call.num_prompt // 512
            for place, block in enumerate(call.blocks):
                owner = None if place < system_tokens // 512 else index
                prefix = (owner, call.blocks[:place])
                assert seen.setdefault(block, prefix) == prefix
            assert min(call.blocks, default=5) >= 5


def test_reasoning_stays_within_a_turn_and_the_prefix_returns_to_its_first_prompt():
    num_returns = 0
    for session in drawn(mean_turns=3, mean_calls=4, dropped_share=1):
        first, num_tools = session.calls[0], 0
        for before, after in pairwise(session.calls):
            if after.num_output == 2000:
                num_tools += 1
                assert after.num_prompt == before.num_prompt + before.num_output + 300
                assert common(before.blocks, after.blocks) == len(before.blocks)
            else:
                assert after.num_prompt == first.num_prompt + 300 * num_tools + 600
                assert common(before.blocks, after.blocks) == len(first.blocks)
                first, num_tools = after, 0
                num_returns += 1
    assert num_returns


def test_means_are_those_asked_for():
    found = drawn(2000, mean_turns=3, mean_calls=2)
    assert len(found) == pytest.approx(2000, rel=0.1)
    assert np.mean([len(session.calls) for session in found]) == pytest.approx(6, rel=0.1)
    asked = [call for session in found for call in session.calls[1:] if call.num_output == 500]
    tools = [call for session in found for call in session.calls if call.num_output == 2000]
    assert np.mean([call.pause_s for call in asked]) == pytest.approx(20, rel=0.1)
    assert np.mean([call.pause_s for call in tools]) == pytest.approx(2, rel=0.1)
    assert {session.calls[0].pause_s for session in found} == {0.0}


def test_pauses_without_variation_are_the_mean():
    pauses_s = [
        call.pause_s for s in drawn(mean_turns=3, think=Pauses(mean_s=7, variation=0)) for call in s.calls[1:]
    ]
    assert pauses_s == pytest.approx([7] * len(pauses_s))
    assert pauses_s


def test_sessions_end_before_the_limit():
    found = drawn(mean_turns=50, max_tokens=5000)
    calls = [call for session in found for call in session.calls]
    assert max(call.num_prompt + call.num_output for call in calls) == 1800 + 500 + 2 * 1100
    assert drawn(max_tokens=1000) == []


def test_a_seed_draws_the_same_again():
    lengths = UniformLengths(num_prompt=600, num_output=500)
    assert drawn(seed=1, asked=lengths) == drawn(seed=1, asked=lengths)
    assert drawn(seed=1, asked=lengths) != drawn(seed=2, asked=lengths)


def test_a_call_arrives_its_pause_after_the_answer():
    session = Session(3.0, (Call(0.0, 10, 2, ()), Call(4.0, 20, 3, (9,))), priority=1)
    assert session.arrival(0, session.at_s) == Arrival(3.0, 10, 2, (), 1)
    assert session.arrival(1, 5.5) == Arrival(9.5, 20, 3, (9,), 1)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("mean_turns", 0.5),
        ("mean_calls", float("nan")),
        ("system_tokens", -1),
        ("max_tokens", 0),
        ("dropped_share", 1.5),
    ],
)
def test_bad_sessions_are_named(option, value):
    with pytest.raises(SpecError, match=f"of {value:g}"):
        sessions(**{option: value})


def test_bad_pauses_are_named():
    with pytest.raises(SpecError, match="mean pause of 0"):
        Pauses(mean_s=0)
    with pytest.raises(SpecError, match="variation of -1"):
        Pauses(mean_s=1, variation=-1)
