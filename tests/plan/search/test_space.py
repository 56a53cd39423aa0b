"""Which layouts exist."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from planning import question

from rackscale.plan.search.space import balance_of, budget, groups, ranks_of

KIMI = question("kimi-k2-thinking", "gb200-nvl72", weights="auto", isl=8192, osl=1024)


def spread(space):
    return space.take(np.flatnonzero(space.ep > 1))


def test_wide_groups_of_any_divisor_are_there_with_redundancy():
    space = spread(groups(KIMI, 72))
    widths = set(space.ep.tolist())
    assert {2, 4, 6, 8, 12, 16, 18, 24, 36, 48, 64, 72} <= widths
    assert (space.slots % space.ep == 0).all()
    assert (space.slots >= 384).all()
    assert 432 in space.slots[space.ep == 72]


def test_groups_span_domains_up_to_576():
    widths = ranks_of(KIMI, 10_000)
    assert widths[-1] == 576
    assert all(width % 72 == 0 for width in widths if width > 72)
    assert ranks_of(question(system="hgx-h200"), 24) == [1, 2, 4, 8, 16, 24]


def test_attention_divides_heads_and_ranks():
    space = groups(KIMI, 72)
    assert (space.ranks % space.tp == 0).all()
    assert (64 % space.tp == 0).all()
    assert space.tp.max() == 16
    assert groups(question(system="hgx-h200"), 8).tp.max() == 8


def test_experts_are_split_where_their_width_divides():
    space = groups(KIMI, 72)
    split = space.take(np.flatnonzero((space.ep == 1) & (space.ranks > 1)))
    assert split.ranks.max() == 16
    assert (2048 % split.ranks == 0).all()
    assert (split.slots == 384).all()


@pytest.mark.parametrize(("redundant", "width", "slots"), [(48, 72, {432}), (32, 64, {448}), (0, 64, {384})])
def test_as_many_redundant_experts_as_are_asked_for(redundant, width, slots):
    space = spread(groups(dataclasses.replace(KIMI, redundant=redundant), 72))
    assert set(space.slots[space.ep == width].tolist()) == slots


def test_without_redundancy_ranks_divide_experts():
    space = spread(groups(dataclasses.replace(KIMI, redundant=0), 72))
    assert 72 not in space.ep
    assert (384 % space.ep == 0).all()


def test_a_narrowest_width_is_kept():
    space = groups(dataclasses.replace(KIMI, max_ep=8), 72)
    assert space.ep.max() == 8


def test_a_model_without_experts_has_no_expert_parallelism():
    dense = dataclasses.replace(
        KIMI.model,
        spec=dataclasses.replace(
            KIMI.model.spec,
            moe=None,
            layers=tuple(dataclasses.replace(layer, moe=False) for layer in KIMI.model.spec.layers),
        ),
    )
    space = groups(dataclasses.replace(KIMI, model=dense), 72)
    assert (space.ep == 1).all()
    assert len(space)


def test_a_budget_is_as_asked_or_whole_domains():
    assert budget(dataclasses.replace(KIMI, chips=10), 4) == 10
    assert budget(KIMI, 4) == 72
    assert budget(KIMI, 73) == 144


@settings(max_examples=25, deadline=None)
@given(ranks=st.sampled_from([2, 4, 8, 16, 24, 36, 48, 72]), extra=st.integers(0, 2), skew=st.floats(0, 1.2))
def test_redundant_copies_even_out(ranks, extra, skew):
    slots = (-(-384 // ranks) + extra) * ranks
    assert 0 <= balance_of(384, 8, skew, ranks, slots) <= 1


def test_more_copies_even_out_more():
    few, many = balance_of(384, 8, 0.9, 64, 384), balance_of(384, 8, 0.9, 64, 512)
    assert many > few
    assert many > 0.8


def test_redundancy_is_worth_something_only_where_the_routers_skew_is_known():
    fitted, known = spread(groups(KIMI, 72)), spread(groups(dataclasses.replace(KIMI, skew=0.8), 72))
    assert not fitted.balance.any()
    assert (fitted.slots - 384 < fitted.ep).all()
    assert (known.balance[known.slots > 384] > 0).all()
    assert not known.balance[known.slots == 384].any()
    assert {384, 432, 480} == set(known.slots[known.ep == 48].tolist())
