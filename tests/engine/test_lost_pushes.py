"""KV that does not arrive is computed again, where it is needed."""

import pytest
from world import World, small

from rackscale.specs import Role

POOLS = ({"role": Role.PREFILL}, {"role": Role.DECODE})


@pytest.fixture(autouse=True)
def everything_is_prefilled_apart(monkeypatch):
    monkeypatch.setattr("rackscale.policy.pools.UNKNOWN_TOKENS", 2)


@pytest.mark.parametrize("chunk", [4, 16])
def test_the_decode_group_computes_what_did_not_arrive(chunk):
    world = World(small(pools=POOLS, max_batched_tokens=chunk, max_in_flight=1))
    world.arrive("a", prompt=range(10), max_tokens=6)
    world.step(0, loses_pushes=True)
    assert world.num_lost_pushes == 1
    world.run()
    assert world.num_pushed == 0, "it is not sent again"
    assert world.output["a"] == world.expected_output("a")
    assert [world.stats(group).num_owned_blocks for group in (0, 1)] == [0, 0]


def test_a_push_that_is_lost_after_the_client_went():
    world = World(small(pools=POOLS, max_batched_tokens=4))
    world.arrive("a", prompt=range(10), max_tokens=6)
    world.cancel("a")
    world.step(0, loses_pushes=True)
    world.run()
    assert [world.stats(group).num_owned_blocks for group in (0, 1)] == [0, 0]


def test_other_requests_of_the_step_go_on():
    world = World(small(pools=POOLS, max_batched_tokens=6))
    world.arrive("a", prompt=range(10), max_tokens=6)
    world.step(0)
    world.arrive("b", prompt=range(20, 30), max_tokens=6)
    world.step(0, loses_pushes=True)
    world.run()
    assert world.num_pushed > 0
    assert all(world.output[name] == world.expected_output(name) for name in "ab")
