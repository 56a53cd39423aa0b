"""Hosts and groups as the engine sees them: who may join, what counts as a death, and when it is too much."""

import asyncio
import logging
import signal

import pytest
from fake_peers import HANG_LIMIT_S, START_LIMIT_S, FakePeer, answered, fleet_of, hello, joins, step

from rackscale.core import PlaceExperts, column
from rackscale.runtime.messages import (
    Failed,
    KillGroup,
    Load,
    Loaded,
    Loading,
    Perform,
    Ping,
    Place,
    Pong,
    RankExited,
    Ready,
    StartGroup,
)
from rackscale.serve.group import CLOSE_LIMIT_S, MAX_FAILURES, State
from rackscale.serve.host_link import LOAD_LIMITS
from rackscale.specs import Role

LOADED = Loaded(kernels="native", num_threads=1, num_weight_bytes=1)
PLACEMENT = PlaceExperts(group=0, num_experts=1, most=1, ranks=column([0]), counts=column([1]), num_moved=0)


def loaded(*groups):
    """A fleet whose host has the model, and is told to start."""
    fleet, notes = fleet_of(*groups)
    host = joins(fleet)
    host.says(LOADED)
    return fleet, notes, host


def start(fleet, number=0):
    """Ranks of the group connect; they are ready."""
    group = fleet.groups[number]
    ranks = [
        joins(fleet, group=number, rank=rank, incarnation=group.incarnation, pid=100 + rank)
        for rank in range(group.spec.num_ranks)
    ]
    for rank in ranks:
        rank.says(Ready())
    return ranks


def up(*groups):
    fleet, notes, host = loaded(*groups)
    return fleet, notes, host, start(fleet)


def die(rank, others=()):
    """One is gone, and then those that are ended with it."""
    for peer in (rank, *others):
        peer.goes()


def passes(fleet, seconds):
    while seconds > 0:
        fleet.tick(min(0.1, seconds))
        seconds -= 0.1


def test_a_host_loads_and_forks_and_the_group_is_up_when_all_ranks_are():
    fleet, notes = fleet_of()
    host = joins(fleet)
    (load,) = host.got(Load)
    assert load.ranks == ((0, 0), (0, 1))
    host.says(Loading(done=1, total=5))
    assert not host.got(StartGroup)
    host.says(LOADED)
    assert host.got(StartGroup) == [StartGroup(group=0, incarnation=1)]
    first = joins(fleet, group=0, rank=0, incarnation=1)
    first.says(Ready())
    assert notes.told == [("loading", 1, 5)]
    joins(fleet, group=0, rank=1, incarnation=1).says(Ready())
    assert notes.told[1:] == [("up", 0)]


def test_every_group_goes_to_some_host():
    fleet, _ = fleet_of((Role.PREFILL, 1), (Role.DECODE, 2), num_hosts=2)
    first = joins(fleet, host="b")
    assert not first.sent
    second = joins(fleet, host="a")
    assert second.got(Load)[0].ranks == ((0, 0),)
    assert first.got(Load)[0].ranks == ((1, 0), (1, 1))
    second.says(LOADED)
    assert second.got(StartGroup)
    assert not first.got(StartGroup)


def test_hosts_without_room_are_the_end():
    fleet, notes = fleet_of()
    joins(fleet, num_ranks=1)
    assert notes.of("broken")


def test_a_stranger_needs_the_token(caplog):
    fleet, _ = fleet_of()
    assert joins(fleet, token="other").closed
    assert not fleet.hosts
    assert "without the token" in caplog.text


@pytest.mark.parametrize(
    "fields",
    [
        {"group": 7, "rank": 0},
        {"group": -1, "rank": 0},
        {"group": 0, "rank": None},
        {"group": 0, "rank": 2},
        {"group": 0, "rank": -1},
        {"group": 0, "rank": 0, "incarnation": 0},
        {"group": 0, "rank": 0, "incarnation": 2},
    ],
)
def test_ranks_that_nobody_waits_for(fields):
    fleet, _, _ = loaded()
    assert joins(fleet, **{"incarnation": 1, **fields}).closed
    assert not fleet.groups[0].links


def test_a_rank_joins_once():
    fleet, _, _ = loaded()
    assert not joins(fleet, group=0, rank=0, incarnation=1).closed
    assert joins(fleet, group=0, rank=0, incarnation=1).closed


def test_a_second_host_of_one_name_is_not_wanted():
    fleet, _, host = loaded()
    assert joins(fleet).closed
    host.goes()
    assert joins(fleet).got(Load)


def test_steps_overlap_and_end_in_order_when_all_ranks_have_answered():
    fleet, notes, _, (first, second) = up()
    fleet.perform(step(0))
    fleet.perform(step(1))
    assert len(first.got(Perform)) == len(second.got(Perform)) == 2
    first.says(answered(5))
    first.says(answered(7))
    assert not notes.of("done")
    second.says(answered(6))
    second.says(answered(8))
    assert notes.of("done") == [("done", 0, [[5], [6]]), ("done", 1, [[7], [8]])]


def test_a_group_dies_as_a_whole_and_counts_as_lost_when_all_connections_are_closed():
    fleet, notes, host, (first, second) = up()
    fleet.perform(step(0))
    first.goes()
    assert second.killed
    assert host.got(KillGroup) == [KillGroup(group=0)]
    assert not notes.of("lost")
    assert fleet.groups[0].state is State.ENDING
    second.goes()
    ((_, _, why),) = notes.of("lost")
    assert "rank 0 (process 100) is gone" in why
    assert host.got(StartGroup)[-1].incarnation == 2
    start(fleet)
    assert len(notes.of("up")) == 2


def test_what_a_rank_says_that_is_to_be_ended_does_not_count():
    fleet, notes, _, (first, second) = up()
    fleet.perform(step(0))
    second.says(answered(6))
    first.goes()
    second.says(answered(6))
    second.says(Ready())
    assert fleet.groups[0].state is State.ENDING
    assert not notes.of("done")


def test_a_step_for_a_group_that_is_not_up_is_forgotten():
    fleet, notes, _, ranks = up()
    die(ranks[0], ranks[1:])
    fleet.perform(step(0))
    assert not fleet.groups[0].in_flight
    ranks = start(fleet)
    assert not ranks[0].got(Perform)
    assert not notes.of("done")


def test_an_answer_to_no_question_ends_the_group():
    fleet, _, _, (first, second) = up()
    first.says(answered(5))
    assert second.killed
    assert fleet.groups[0].state is State.ENDING


def test_a_rank_that_fails_ends_the_group():
    _, notes, _, (first, second) = up()
    first.says(Failed(what="it does not fit", hint="", exit_code=2))
    die(first, [second])
    assert "rank 0: it does not fit" in notes.of("lost")[0][2]


def test_a_rank_that_hangs_is_dead_after_the_limit():
    fleet, _, _, (first, second) = up()
    passes(fleet, 2 * HANG_LIMIT_S)
    assert fleet.groups[0].is_up
    fleet.perform(step(0))
    passes(fleet, HANG_LIMIT_S - 0.2)
    first.says(answered(5))
    passes(fleet, HANG_LIMIT_S - 0.2)
    assert fleet.groups[0].is_up
    passes(fleet, 0.5)
    assert first.killed
    assert second.killed


def test_ranks_that_do_not_start_are_dead_after_their_limit():
    fleet, notes, _ = loaded()
    first = joins(fleet, group=0, rank=0, incarnation=1)
    passes(fleet, START_LIMIT_S + 0.2)
    assert first.killed
    first.goes()
    assert "did not start" in notes.of("lost")[0][2]


def test_connections_out_of_reach_are_closed_in_the_end():
    fleet, notes, _, (first, second) = up()
    first.goes()
    passes(fleet, CLOSE_LIMIT_S + 0.2)
    assert second.closed
    second.goes()
    assert notes.of("lost")


def test_failures_are_tried_again_after_longer_and_longer_pauses_and_are_too_many_in_the_end():
    fleet, notes, host = loaded()
    waited = []
    for number in range(1, MAX_FAILURES + 1):
        assert host.got(StartGroup)[-1].incarnation == number
        host.says(RankExited(group=0, rank=0, incarnation=number, status=1))
        waited.append(0)
        while len(host.got(StartGroup)) == number and not notes.of("broken"):
            fleet.tick(0.1)
            waited[-1] += 1
    # The first is tried again at once: whether it failed is known only when it has been.
    assert waited[1:-1] == sorted(waited[1:-1])
    assert waited[-2] > waited[1]
    assert f"failed {MAX_FAILURES} times (rank 0 ended with status 1)" in notes.of("broken")[0][1]


def test_a_crash_that_is_heard_of_after_the_connection_closed_counts():
    fleet, _, host = loaded()
    for number in range(1, MAX_FAILURES + 1):
        ranks = start(fleet)
        die(ranks[0], ranks[1:])
        host.says(RankExited(group=0, rank=0, incarnation=number, status=-signal.SIGSEGV))
        passes(fleet, 5.0)
    assert len(host.got(StartGroup)) <= MAX_FAILURES + 1


def test_to_be_killed_is_no_failure():
    _, notes, host = loaded()
    for number in range(1, 3 * MAX_FAILURES):
        host.says(RankExited(group=0, rank=0, incarnation=number, status=-signal.SIGKILL))
        assert host.got(StartGroup)[-1].incarnation == number + 1
    assert not notes.of("broken")


def test_a_step_that_was_done_forgives_all_failures():
    fleet, notes, host = loaded()
    for _ in range(2 * MAX_FAILURES):
        group = fleet.groups[0]
        host.says(RankExited(group=0, rank=0, incarnation=group.incarnation, status=1))
        passes(fleet, 5.0)
        ranks = start(fleet)
        fleet.perform(step(0))
        for rank in ranks:
            rank.says(answered(5))
        die(ranks[0], ranks[1:])
    assert not notes.of("broken")


def test_placements_outlive_a_group():
    fleet, _, _, ranks = up()
    fleet.place(PLACEMENT)
    assert all(rank.got(Place) for rank in ranks)
    die(ranks[0], ranks[1:])
    assert all(rank.got(Place) for rank in start(fleet))


def test_when_a_host_is_gone_its_groups_are():
    fleet, notes, host, ranks = up()
    host.goes()
    assert all(rank.killed for rank in ranks)
    die(ranks[0], ranks[1:])
    assert "host here is gone" in notes.of("lost")[0][2]
    other = joins(fleet)
    assert not other.got(StartGroup)
    other.says(LOADED)
    assert other.got(StartGroup) == [StartGroup(group=0, incarnation=2)]


def test_a_host_that_does_not_answer_hangs():
    fleet, notes, host, _ = up()
    for _ in range(3):
        passes(fleet, 1.2)
        assert host.got(Ping)
        host.says(Pong())
    passes(fleet, 1.2 + HANG_LIMIT_S - 0.3)
    assert not notes.of("hangs")
    passes(fleet, 0.5)
    assert set(notes.of("hangs")) == {("hangs", "here", 1)}
    assert host.closed


def test_a_host_may_take_its_time_to_load_but_not_for_ever():
    fleet, notes = fleet_of()
    host = joins(fleet)
    most = START_LIMIT_S * LOAD_LIMITS
    passes(fleet, most - 1)
    host.says(Loading(done=1, total=2))
    passes(fleet, most - 1)
    assert not notes.of("hangs")
    passes(fleet, 2)
    assert notes.of("hangs")


def test_a_host_s_own_error_is_the_end():
    fleet, notes = fleet_of()
    joins(fleet).says(Failed(what="no weights", hint="", exit_code=2))
    assert notes.of("broken") == [("broken", "no weights")]


def test_a_halt_of_this_process_is_nobody_s_hang():
    async def scenario():
        fleet, _, _, ranks = up()
        fleet.perform(step(0))
        loop = asyncio.get_running_loop()
        watching = asyncio.ensure_future(fleet.watch())
        await asyncio.sleep(0)
        offset, real = 0.0, loop.time
        loop.time = lambda: real() + offset
        offset = 100.0
        while fleet.now == 0.0:  # noqa: ASYNC110 (it is the time that passes)
            await asyncio.sleep(0)
        watching.cancel()
        assert fleet.now < 1.0
        assert not ranks[0].killed

    asyncio.run(scenario())


def test_frames_reach_a_fleet_through_a_stranger(caplog):
    caplog.set_level(logging.CRITICAL)
    fleet, _ = fleet_of()
    stranger = fleet.peer().listener
    peer = FakePeer()
    peer.listener = stranger
    peer.says(hello())
    assert "here" in fleet.hosts
    stranger.closed(peer)
