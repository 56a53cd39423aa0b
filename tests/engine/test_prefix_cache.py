"""What is computed once is found again: by later requests, by siblings, and after a preemption."""

import pytest
from world import World, small

from rackscale.core import RunStep


def seated(commands):
    """Whom the commands seat, and where their computing starts."""
    return {
        seat.request.id: plan.num_computed[plan.rows.tolist().index(seat.row)]
        for command in commands
        if isinstance(command, RunStep)
        for plan in command.plan.ranks
        for seat in plan.seats
    }


@pytest.mark.parametrize(("length", "num_cached"), [(3, 0), (4, 0), (5, 4), (8, 4), (9, 8)])
def test_a_prompt_is_found_in_whole_blocks_but_for_its_last_token(length, num_cached):
    world = World(small())
    world.arrive("a", prompt=range(length), max_tokens=1)
    world.run()
    assert seated(world.arrive("b", prompt=range(length), max_tokens=1)) == {"b": num_cached}
    world.run()
    assert world.ended["b"].num_cached == num_cached


def test_output_is_found_too():
    world = World(small())
    world.arrive("a", prompt=range(6), max_tokens=8)
    world.run()
    talk = (*range(6), *world.output["a"], 1, 1)
    assert seated(world.arrive("b", prompt=talk)) == {"b": 12}


def test_a_prompt_is_found_as_soon_as_it_is_planned():
    world = World(small())
    world.arrive("a", prompt=range(10), max_tokens=20)
    world.arrive("b", prompt=range(10), max_tokens=20)
    assert seated(world.step()) == {"b": 8}
    assert world.stats().num_owned_blocks == 2 + 1 + 1  # two shared, and one more each
    world.run()


def test_what_nobody_owns_is_forgotten_when_blocks_run_out():
    world = World(small(num_blocks=10))
    world.arrive("a", prompt=range(9), max_tokens=1)
    world.run()
    world.arrive("b", prompt=range(100, 139), max_tokens=1)
    world.run()
    assert seated(world.arrive("c", prompt=range(9), max_tokens=1)) == {"c": 0}


def test_siblings_wait_for_their_leaders_prompt_and_share_it():
    world = World(small(max_batched_tokens=8, max_running=4))
    assert seated(world.arrive("a", prompt=range(20), max_tokens=9)) == {"a": 0}
    assert world.arrive("b", prompt=range(20), max_tokens=9, sibling_of="a") == []
    assert world.arrive("c", prompt=range(20), max_tokens=9, sibling_of="a") == []
    assert world.stats().num_waiting == 2
    assert seated(world.step()) == {}  # the prompt's last chunk is only now in a plan
    assert seated(world.step()) == {"b": 16, "c": 16}
    world.run()
    assert world.stats().num_hit_tokens == 32
    assert all(world.output[name] == world.expected_output(name) for name in "abc")


def test_a_leader_may_go_and_its_siblings_stay():
    world = World(small(max_batched_tokens=8))
    world.arrive("a", prompt=range(30))
    world.arrive("b", prompt=range(30), sibling_of="a")
    world.cancel("a")
    world.run()
    assert world.output["b"] == world.expected_output("b")


def test_a_sibling_may_go_while_it_is_held():
    world = World(small(max_batched_tokens=8))
    world.arrive("a", prompt=range(30))
    world.arrive("b", prompt=range(30), sibling_of="a")
    world.cancel("b")
    assert world.stats().num_waiting == 0
    world.run()


def test_a_sibling_of_nobody_goes_its_own_way():
    world = World(small())
    assert seated(world.arrive("b", sibling_of="never-came")) == {"b": 0}


def test_the_hit_rate_counts_what_was_looked_up():
    world = World(small())
    for name in "ab":
        world.arrive(name, prompt=range(10), max_tokens=1)
        world.run()
    assert (world.stats().num_queried_tokens, world.stats().num_hit_tokens) == (20, 8)
