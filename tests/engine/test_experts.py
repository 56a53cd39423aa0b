"""Loads come with steps, and experts move when that pays."""

import numpy as np
import pytest
from world import World, small

from rackscale.core import GroupId, PlaceExperts, RankResult, StepDone, column
from rackscale.engine import build
from rackscale.engine.expert_state import MIN_GAIN

EXPERTS = 8
GROUP = GroupId(0)


def world(**changes):
    return World(small(num_ranks=2, num_experts=EXPERTS, **changes))


def step(world, loads):
    """The oldest step is done, with these loads by rank."""
    world.now += 0.01
    plan = world.flights[0].popleft()
    results = [rank.step(part) for rank, part in zip(world.ranks[0], plan.ranks, strict=True)]
    results = [
        RankResult(tokens=result.tokens, expert_loads=column(load))
        for result, load in zip(results, loads, strict=True)
    ]
    return world.feed(StepDone(group=GROUP, plan=plan.plan, ranks=tuple(results)))


def placements(world, loads, steps):
    """What the engine says of experts over so many steps of one long request."""
    world.arrive("a", max_tokens=38)
    said = []
    for _ in range(steps):
        said += [command for command in step(world, loads) if isinstance(command, PlaceExperts)]
    return said


def test_one_rank_has_all_experts():
    assert build(small(num_experts=EXPERTS)).placement(GROUP) is None
    assert build(small(num_ranks=2)).placement(GROUP) is None, "a model without experts"
    assert build(small(num_experts=EXPERTS)).stats().groups[0].experts is None


def test_at_first_experts_are_spread_in_order():
    first = world().engine.placement(GROUP)
    assert first.num_experts == EXPERTS
    assert first.counts.tolist() == [1] * EXPERTS
    assert first.ranks.tolist() == [0] * 4 + [1] * 4
    assert first.num_moved == 0


def test_skewed_loads_move_experts_once():
    busy = world(rebalance_every=5)
    loads = [[90, 80, 70, 60, 1, 1, 1, 1], []]  # a rank that had nothing to do reports nothing
    (placed,) = placements(busy, loads, 20)
    assert placed.num_moved > 0
    tokens = np.zeros(2)
    np.add.at(tokens, placed.ranks[: EXPERTS * placed.most : placed.most], loads[0])
    assert tokens.max() / tokens.mean() < 1.1
    stats = busy.engine.stats().groups[0].experts
    assert stats.num_rebalances == 1
    assert stats.num_moved == placed.num_moved
    assert stats.imbalance < 1.1
    assert np.shape(stats.loads) == (1, EXPERTS)
    assert busy.engine.placement(GROUP).ranks.tolist() == placed.ranks.tolist()


@pytest.mark.parametrize(
    ("every", "loads"),
    [
        (5, [[10] * EXPERTS, [10] * EXPERTS]),
        (5, [[], []]),
        (5, [[100, 100, 100, 100 + int(MIN_GAIN * 100), 100, 100, 100, 100], []]),
        (0, [[90, 80, 70, 60, 1, 1, 1, 1], []]),
        (5, [[1000, 1, 1, 1, 1, 1, 1, 1], []]),
    ],
    ids=["even", "unreported", "nearly even", "told to stay", "one has all"],
)
def test_experts_that_stay(every, loads):
    assert placements(world(rebalance_every=every), loads, 20) == []


def test_redundant_experts_have_copies():
    placed = build(small(num_ranks=2, num_experts=EXPERTS, redundant_experts=2)).placement(GROUP)
    assert placed.counts.sum() == EXPERTS + 2
    assert placed.most == 2
