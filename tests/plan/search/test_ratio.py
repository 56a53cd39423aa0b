"""Prompts' groups to answers' groups."""

import dataclasses

import numpy as np

from rackscale.plan.search.ratio import MOST_BUSY, MOST_GROUPS, Sides, fewest_chips, pairs

SIDES = Sides(
    decode_ranks=np.array([8.0, 4.0]),
    rate=np.array([3.0, 1.0]),
    prefill_ranks=np.array([4.0, 2.0]),
    each_s=np.array([0.2, 0.5]),
    same=np.array([[True, True], [True, False]]),
)


def all_pairs(chips, more):
    found = [pairs(SIDES, np.arange(2), groups, chips, more) for groups in range(1, MOST_GROUPS + 1)]
    return [
        row
        for some in found
        for row in zip(some.decode, some.prefill, some.decode_groups, some.prefill_groups, strict=True)
    ]


def test_all_that_keep_up_within_the_chips():
    expected = {
        (decode, prefill, answers, prompts)
        for decode in range(2)
        for prefill in range(2)
        for answers in range(1, MOST_GROUPS + 1)
        for prompts in range(1, MOST_GROUPS + 1)
        if SIDES.same[decode, prefill]
        and answers * SIDES.decode_ranks[decode] + prompts * SIDES.prefill_ranks[prefill] <= 32
        and answers * SIDES.rate[decode] * SIDES.each_s[prefill] <= MOST_BUSY * prompts
    }
    found = all_pairs(32, MOST_GROUPS)
    assert len(found) == len(set(found))
    assert set(found) == expected


def test_the_fewest_come_first():
    few = set(all_pairs(32, 1))
    for decode, prefill, answers, prompts in all_pairs(32, MOST_GROUPS):
        assert any(one[:3] == (decode, prefill, answers) and one[3] <= prompts for one in few)


def test_no_chips_no_pairs():
    assert not all_pairs(4, 3)


def test_no_pair_has_fewer_chips_than_the_bound():
    for decode, prefill, answers, prompts in all_pairs(64, MOST_GROUPS):
        chips = answers * SIDES.decode_ranks[decode] + prompts * SIDES.prefill_ranks[prefill]
        assert chips >= fewest_chips(SIDES, int(answers))[decode] - 1e-9


def test_without_prefill_pools_no_number_of_chips_is_enough():
    none = dataclasses.replace(
        SIDES, prefill_ranks=np.zeros(0), each_s=np.zeros(0), same=np.zeros((2, 0), dtype=bool)
    )
    assert np.isinf(fewest_chips(none, 1)).all()
    assert not len(pairs(none, np.arange(2), 1, 64))
