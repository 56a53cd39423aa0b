"""Blocks run out while sequences grow: the least important gives way, and loses no token."""

from world import World, small

from rackscale.core import RunStep


def crowded(**priorities):
    """Two sequences that need 5 blocks each at their ends, where there are 8."""
    world = World(small(num_blocks=8, max_model_len=20))
    for name, priority in priorities.items():
        world.arrive(name, prompt=[ord(name)] * 4, max_tokens=16, priority=priority)
    return world


def first_to_leave(world):
    while world.stats().num_preempted == 0:
        world.step()
    (stays,) = world.flights[0][-1].ranks[0].rows.tolist()
    (running,) = (name for name, row in world.engine._rank_of["a"]._row_of.items() if row == stays)
    return ({"a", "b"} - {running}).pop()


def test_the_youngest_gives_way():
    assert first_to_leave(crowded(a=0, b=0)) == "b"


def test_the_less_urgent_gives_way_first():
    assert first_to_leave(crowded(a=1, b=0)) == "a"


def test_nobody_is_seated_in_the_step_that_preempts():
    world = crowded(a=0, b=0)
    first_to_leave(world)
    assert world.flights[0][-1].ranks[0].seats == ()


def test_who_gave_way_comes_back_with_its_tokens_and_most_of_its_cache():
    world = crowded(a=0, b=0)
    first_to_leave(world)
    seats = []
    while world.flights[0]:
        seats += [
            (seat, plan.ranks[0].num_computed[plan.ranks[0].rows.tolist().index(seat.row)])
            for plan in (command.plan for command in world.step() if isinstance(command, RunStep))
            for seat in plan.ranks[0].seats
        ]
    seat, num_computed = seats[0]
    assert seat.request.id == "b"
    assert list(seat.emitted) == world.expected_output("b")[: len(seat.emitted)] != []
    assert num_computed > 0
    assert world.ended["b"].num_cached == 0  # its prompt was new when it first came
    assert world.output["a"] == world.expected_output("a")
    assert world.output["b"] == world.expected_output("b")


def test_what_has_no_room_waits_and_does_not_push():
    world = World(small(num_blocks=10))
    world.arrive("a", prompt=range(30), max_tokens=9)
    world.arrive("b", prompt=range(100, 130), max_tokens=9, priority=-1)
    world.step()
    world.step()
    world.step()
    assert world.stats().num_waiting == 1
    assert world.stats().num_preempted == 0
    world.run()
    assert world.stats().num_preempted == 0
