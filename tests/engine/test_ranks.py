"""Groups of several ranks step together, and ranks come and go."""

import pytest
from world import World, small

from rackscale.core import RunStep


@pytest.mark.parametrize("num_ranks", [1, 2, 4])
def test_every_rank_has_its_part_of_every_step(num_ranks):
    world = World(small(num_ranks=num_ranks))
    (step, _) = (command.plan for command in world.arrive() if isinstance(command, RunStep))
    assert [len(rank.rows) for rank in step.ranks] == [1] + [0] * (num_ranks - 1)
    idle = step.ranks[1:]
    assert all(rank.seats == () and len(rank.block_ids) == 0 for rank in idle)
    world.run()


def test_requests_spread_over_ranks():
    world = World(small(num_ranks=4))
    for number in range(4):
        world.arrive(f"r{number}", prompt=[number] * 9)
    world.step()
    assert [rank.num_running for rank in world.engine._groups[0].ranks] == [1, 1, 1, 1]


def test_a_request_goes_where_its_prefix_is():
    world = World(small(groups=2, num_ranks=2))
    for number in range(4):
        world.arrive(f"r{number}", prompt=[number] * 9, max_tokens=1)
    world.run()
    world.arrive("again", prompt=[2] * 9, max_tokens=1)
    world.run()
    assert world.ended["again"].num_cached == 8
    assert [world.stats(group).num_hit_tokens for group in (0, 1)] == [0, 8]


def test_siblings_go_where_their_leader_is():
    world = World(small(groups=2, num_ranks=2, max_running=2))
    world.arrive("a", prompt=range(9))
    for name in "bcd":
        world.arrive(name, prompt=range(9), sibling_of="a")
    world.run()
    assert world.stats(1).num_queried_tokens == 0
    assert world.stats(0).num_hit_tokens == 3 * 8


def test_samples_are_counted_over_all_ranks():
    world = World(small(num_ranks=2, max_in_flight=1))
    world.arrive("a", prompt=[1] * 5)
    world.arrive("b", prompt=[2] * 5)
    world.step()
    (emit, _) = world.step()
    assert emit.requests == ("a", "b")
    assert emit.samples.tolist() == [0, 1]


def test_a_lost_rank_moves_all_of_its_group_with_what_was_said():
    world = World(small(groups=2))
    world.arrive("a", max_tokens=9)
    world.step(0)
    said = list(world.output["a"])
    commands = world.lose(0)
    seats = [seat for c in commands if isinstance(c, RunStep) for seat in c.plan.ranks[0].seats]
    assert [(seat.request.id, list(seat.emitted)) for seat in seats] == [("a", said)]
    assert all(c.plan.group == 1 for c in commands)
    world.run()
    assert world.output["a"] == world.expected_output("a")


def test_without_another_group_they_wait_for_the_rank():
    world = World(small(num_ranks=2))
    world.arrive("a", max_tokens=9)
    world.arrive("b", max_tokens=9, sibling_of="a")
    world.step()
    assert world.lose(0, rank=1) == []
    assert world.stats().num_waiting == 2
    world.arrive("c")
    assert not any(world.flights)
    world.lose(0, rank=0)
    assert world.join(0, rank=1) == []  # the other one is still away
    world.join(0, rank=0)
    world.run()
    assert all(world.output[name] == world.expected_output(name) for name in "abc")


def test_the_cache_of_a_lost_group_is_forgotten():
    world = World(small())
    world.arrive("a", prompt=range(9), max_tokens=1)
    world.run()
    world.lose()
    world.join()
    world.arrive("b", prompt=range(9), max_tokens=1)
    world.run()
    assert world.ended["b"].num_cached == 0


def test_who_waits_for_a_lost_group_goes_to_the_first_that_is_whole():
    world = World(small(groups=2))
    world.lose(0)
    world.lose(1)
    for name in "abcd":
        world.arrive(name, prompt=[ord(name)] * 5)
    assert not any(world.flights)
    world.join(1)
    world.run()
    assert sorted(world.ended) == ["a", "b", "c", "d"]
    assert world.stats(0).num_queried_tokens == 0
