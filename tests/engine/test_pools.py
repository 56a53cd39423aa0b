"""Prefill and decode apart: where prompts go, what is kept for them, and what happens when a pool is gone."""

import pytest
from world import World, small

from rackscale.core import Arrive, FinishReason, RunStep, Seconds
from rackscale.specs import Role

PREFILL, DECODE = {"role": Role.PREFILL}, {"role": Role.DECODE}
P, D = 0, 1


@pytest.fixture(autouse=True)
def nearly_all_prompts_are_long(monkeypatch):
    monkeypatch.setattr("rackscale.policy.pools.UNKNOWN_TOKENS", 4)


def apart(*more, **changes):
    return World(small(pools=(PREFILL, DECODE, *more), **changes))


def pushes(commands):
    return [
        push
        for command in commands
        if isinstance(command, RunStep)
        for rank in command.plan.ranks
        for push in rank.pushes
    ]


def seats(commands, group):
    return [
        seat.request.id
        for command in commands
        if isinstance(command, RunStep) and command.plan.group == group
        for rank in command.plan.ranks
        for seat in rank.seats
    ]


def test_a_long_prompt_is_prefilled_and_moves():
    world = apart()
    (push,) = pushes(world.arrive("a", prompt=range(9)))
    assert (push.start, push.end, push.group) == (0, 9, D)
    assert world.stats(D).num_owned_blocks == 3, "the room is kept before the first token is computed"
    commands = world.step(P)
    assert world.output["a"] == world.expected_output("a")[:1], "the first token comes from the prefill pool"
    assert seats(commands, D) == ["a"]
    assert world.stats(P).num_owned_blocks == 0
    world.run()
    assert world.output["a"] == world.expected_output("a")


def test_a_short_prompt_stays_at_the_decode_pool():
    world = apart()
    assert seats(world.arrive("a", prompt=[1, 2, 3]), D) == ["a"]
    world.run()
    assert world.num_pushed == 0


def test_a_prompt_that_the_decode_pool_knows_stays_there():
    world = apart()
    world.arrive("a", prompt=range(12), max_tokens=1)
    world.arrive("b", prompt=range(12), max_tokens=2)
    world.run()
    moved = world.num_pushed
    assert seats(world.arrive("c", prompt=range(12)), D) == ["c"]
    world.run()
    assert world.num_pushed == moved
    assert world.ended["c"].num_cached == 8


def test_chunks_move_as_they_are_computed_and_hits_do_not():
    world = apart(max_batched_tokens=8)
    first = pushes(world.arrive("a", prompt=range(20)))
    assert [(push.start, push.end) for push in first] == [(0, 8), (8, 16)]
    world.run()
    # The decode pool knows the prefix now, and the prefill pool too: only the rest is computed and moved.
    later = pushes(world.arrive("b", prompt=[*range(20), *range(100, 110)]))
    assert [(push.start, push.end) for push in later] == [(20, 28), (28, 30)]
    world.run()
    assert world.output["b"] == world.expected_output("b")


def test_one_token_is_all_that_is_asked_for():
    world = apart()
    world.arrive("a", prompt=range(9), max_tokens=1)
    world.run()
    assert world.ended["a"].reason is FinishReason.LENGTH
    assert world.stats(D).num_owned_blocks == 0


def test_without_room_at_the_decode_pool_prompts_wait():
    world = apart(max_running=1, num_blocks=10)
    world.arrive("a", prompt=range(9), max_tokens=8)
    world.step(P)
    assert pushes(world.arrive("b", prompt=range(20, 29))) == []
    assert world.stats(P).num_waiting == 1
    world.run()
    assert world.output["b"] == world.expected_output("b")


def test_cancelled_while_its_kv_is_on_its_way():
    world = apart()
    world.arrive("a", prompt=range(9))
    world.cancel("a")
    assert world.stats(D).num_owned_blocks == 3, "a step in flight still writes there"
    world.step(P)
    assert world.stats(D).num_owned_blocks == 0


def test_cancelled_between_the_pools():
    world = apart(max_in_flight=1)
    world.arrive("short", prompt=[1, 2], max_tokens=9)
    world.arrive("a", prompt=range(9), max_tokens=9)
    world.step(P)
    assert world.stats(D).num_waiting == 1, "a step of the decode pool is in flight without it"
    world.cancel("a")
    world.run()
    assert world.stats(D).num_owned_blocks == 0


def test_the_decode_pool_is_lost_while_kv_is_on_its_way():
    world = apart()
    world.arrive("a", prompt=range(9))
    world.lose(D)
    world.step(P)
    world.join(D)
    world.run()
    assert world.output["a"] == world.expected_output("a")


def test_lost_twice_with_a_prefix_that_was_shared():
    world = apart()
    world.arrive("a", prompt=range(12), max_tokens=2)
    world.run()
    world.arrive("b", prompt=[*range(12), *range(50, 62)])
    for _ in range(2):
        world.lose(D)
        world.join(D)
    world.run()
    assert world.output["b"] == world.expected_output("b")


@pytest.mark.parametrize("gone", [P, D])
def test_what_is_left_does_both(gone):
    world = apart()
    world.lose(gone)
    world.arrive("a", prompt=range(9))
    world.run()
    assert world.output["a"] == world.expected_output("a")
    assert world.num_pushed == 0


def test_a_decode_group_helps_out_while_prompts_wait_long():
    world = apart(max_batched_tokens=4, max_in_flight=1)
    world.arrive("steady", prompt=[1], max_tokens=39)
    for _ in range(12):  # what steps cost is measured
        world.now += 0.01
        world.step(D)
    for number in range(8):
        world.arrive(f"r{number}", prompt=range(number, number + 20), max_tokens=1)
    for _ in range(10):
        world.now += 0.01 * (1 + _ % 2)
        world.step(P)
        if world.flights[D]:
            world.step(D)
    assert world.engine.stats().groups[D].role is Role.MIXED
    assert seats(world.arrive("late", prompt=range(60, 80)), D) == ["late"] or world.engine.num_waiting
    world.run()
    world.arrive("after", prompt=range(9))
    world.run()
    assert world.engine.stats().groups[D].role is Role.DECODE
    assert all(world.output[name] == world.expected_output(name) for name in world.requests)


def test_another_engine_goes_on_where_the_first_one_ended():
    world = apart()
    world.arrive("a", prompt=range(9), max_tokens=6)
    said = tuple(world.expected_output("a")[:3])
    fresh = apart()
    fresh.requests["a"], fresh.output["a"] = world.requests["a"], list(said)
    fresh.feed(Arrive(request=world.requests["a"], again=True, emitted=said))
    fresh.run()
    assert fresh.output["a"] == fresh.expected_output("a")
    assert fresh.ended["a"].num_output == 6


@pytest.mark.parametrize(
    ("emitted", "reason"), [((5, 7, 9), FinishReason.STOP), ((5,) * 6, FinishReason.LENGTH)]
)
def test_only_the_end_was_not_said(emitted, reason):
    world = apart()
    world.arrive("a", prompt=range(9), max_tokens=6, stop_token_ids=(9,))
    fresh = apart()
    fresh.requests["a"], fresh.output["a"] = world.requests["a"], []
    (finish,) = fresh.feed(Arrive(request=world.requests["a"], again=True, emitted=emitted))
    assert finish.reason is reason
    assert finish.num_output == len(emitted)


def test_who_was_accepted_once_is_not_refused():
    world = apart(max_waiting=1, max_running=1)
    for name in "abc":
        world.requests[name], world.output[name] = None, []
    accepted = [Arrive(request=request, again=True) for request in map(named, "abc")]
    for event in accepted:
        world.requests[event.request.id] = event.request
        world.engine.handle(event, Seconds(0.0))
    assert world.engine.num_waiting > 1


def named(name):
    from world import request  # noqa: PLC0415

    return request(name, prompt=range(9))


def test_the_decode_pool_is_lost_with_room_that_nobody_writes_to():
    world = apart(max_batched_tokens=8, max_in_flight=1)
    world.arrive("a", prompt=range(20), max_tokens=2)
    world.run()
    world.lose(P)
    world.join(P)
    # The decode pool knows the first blocks, so that the first chunk, computed again, is not moved.
    assert pushes(world.arrive("b", prompt=[*range(20), *range(50, 60)])) == []
    world.lose(D)
    world.join(D)
    world.run()
    assert world.output["b"] == world.expected_output("b")


def test_sums_over_ranks():
    world = World(small(num_ranks=3))
    assert world.engine.is_idle
    world.arrive("a")
    assert not world.engine.is_idle
    assert world.stats().num_blocks == 3 * 40
    assert world.stats().num_running == 1
    assert world.stats().num_preempted == 0
