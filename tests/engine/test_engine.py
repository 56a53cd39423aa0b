"""The shortest history for each thing that the control plane does."""

import pytest
from world import World, request, small

from rackscale.core import (
    Arrive,
    Cancel,
    Emit,
    Finish,
    FinishReason,
    GroupId,
    PlanId,
    RankId,
    RankJoined,
    RankLost,
    RankResult,
    Refuse,
    RefuseReason,
    RequestId,
    RunStep,
    Seconds,
    SpecError,
    StepDone,
    column,
)
from rackscale.engine import build


def always_5(_name, _position):
    return 5


def plans(commands):
    """The plans of the first group's first rank."""
    return [command.plan.ranks[0] for command in commands if isinstance(command, RunStep)]


def only(commands, kind):
    (command,) = (command for command in commands if isinstance(command, kind))
    return command


def done(plan, *tokens):
    result = RankResult(tokens=column(tokens), expert_loads=column())
    return StepDone(group=GroupId(0), plan=PlanId(plan), ranks=(result,))


def test_a_request_from_its_arrival_to_its_end():
    engine = build(small())
    prefill, decode = plans(engine.handle(Arrive(request=request(max_tokens=2)), Seconds(0.0)))
    assert (prefill.num_computed.tolist(), prefill.num_new.tolist()) == ([0], [3])
    assert (decode.num_computed.tolist(), decode.num_new.tolist()) == ([3], [1])

    (emit,) = engine.handle(done(0, 7), Seconds(0.1))  # nothing is left to plan
    assert emit.requests == ("a",)
    assert emit.tokens.tolist() == [7]

    emit, finish = engine.handle(done(1, 8), Seconds(0.2))
    assert emit.tokens.tolist() == [8]
    assert finish == Finish(
        request=RequestId("a"), reason=FinishReason.LENGTH, num_prompt=3, num_cached=0, num_output=2
    )


def test_the_next_step_refers_to_a_token_that_is_not_there_yet():
    world = World(small())
    first, second = plans(world.arrive(max_tokens=9))
    assert first.samples.tolist() == second.samples.tolist() == [1]
    assert second.num_computed.tolist() == [3]  # where the first step's token will stand
    assert second.seats == ()


def test_one_step_in_flight_waits_for_each_token():
    world = World(small(max_in_flight=1))
    assert len(plans(world.arrive())) == 1
    world.run()
    assert world.output["a"] == world.expected_output("a")


def test_a_long_prompt_enters_in_chunks():
    world = World(small(max_batched_tokens=8, max_running=2))
    first, second = plans(world.arrive(prompt=range(20)))
    assert (first.num_new.tolist(), first.samples.tolist()) == ([8], [0])
    assert (second.num_computed.tolist(), second.num_new.tolist()) == ([8], [8])
    (third,) = plans(world.step())
    assert (third.num_new.tolist(), third.samples.tolist()) == ([4], [1])


def test_running_decodes_go_before_a_new_prompt():
    world = World(small(max_batched_tokens=8))
    world.arrive("a", max_tokens=20)
    world.arrive("b", prompt=range(20))
    (mixed,) = plans(world.step())
    assert mixed.num_new.tolist() == [1, 7]
    assert [seat.request.id for seat in mixed.seats] == ["b"]


def test_a_stop_token_ends_a_request_that_is_already_in_the_next_step():
    world = World(small(), draw=always_5)
    world.arrive(max_tokens=9, stop_token_ids=(5,))
    assert only(world.step(), Finish).reason is FinishReason.STOP
    assert world.output["a"] == [5]
    assert world.stats().num_owned_blocks == 0
    assert world.step() == []  # its sample there is nobody's


def test_a_row_that_changed_hands_does_not_get_the_old_ones_token():
    world = World(small(max_running=1), draw=always_5)
    world.arrive("a", max_tokens=9, stop_token_ids=(5,))
    world.arrive("b", max_tokens=1)
    (seated,) = plans(world.step())
    assert [seat.request.id for seat in seated.seats] == ["b"]
    assert seated.seats[0].row == 0
    assert not any(isinstance(command, Emit) for command in world.step())
    assert only(world.step(), Emit).requests == ("b",)


def test_no_stop_token_ends_a_request_before_min_tokens():
    world = World(small(), draw=always_5)
    world.arrive(max_tokens=9, min_tokens=3, stop_token_ids=(5,))
    world.run()
    assert world.output["a"] == [5, 5, 5, 5]


def test_the_context_ends_what_max_tokens_does_not():
    world = World(small(max_model_len=8))
    world.arrive(max_tokens=100)
    world.run()
    assert world.ended["a"].reason is FinishReason.LENGTH
    assert len(world.output["a"]) == 5


def test_the_context_may_be_filled_to_its_last_slot():
    world = World(small(max_model_len=8, num_blocks=2))
    world.arrive(prompt=range(7), max_tokens=1)
    world.run()
    assert len(world.output["a"]) == 1


def test_samples_tell_which_of_the_events_tokens_were_emitted():
    world = World(small(num_ranks=2), draw=lambda _, position: 5 if position >= 5 else 4)
    world.arrive("a", max_tokens=9, stop_token_ids=(5,))
    world.arrive("b", max_tokens=9)
    while "a" not in world.ended:
        both = only(world.step(), Emit)
    assert (both.requests, both.samples.tolist()) == (("a", "b"), [0, 1])
    one = only(world.step(), Emit)  # a is in this step still
    assert (one.requests, one.samples.tolist()) == (("b",), [1])


@pytest.mark.parametrize(
    ("fields", "what"),
    [
        ({"prompt": ()}, "the prompt is empty"),
        ({"prompt": range(40)}, "the prompt has 40 tokens, and the context holds 40 with the output"),
        ({"max_tokens": 0}, "max_tokens is 0"),
    ],
)
def test_what_could_never_run_is_refused(fields, what):
    (refusal,) = build(small()).handle(Arrive(request=request(**fields)), Seconds(0.0))
    assert refusal.reason is RefuseReason.INVALID
    assert refusal.what == what
    assert refusal.hint


def test_a_full_queue_refuses():
    world = World(small(max_running=1, max_waiting=1))
    for name in "abc":
        commands = world.arrive(name)
    refusal = only(commands, Refuse)
    assert (refusal.request, refusal.reason) == ("c", RefuseReason.QUEUE_FULL)
    assert refusal.what == "1 requests are waiting"


def test_a_second_request_under_an_id_in_use_is_refused_and_the_first_goes_on():
    world = World(small())
    world.arrive(max_tokens=9)
    (refusal,) = world.engine.handle(Arrive(request=request()), Seconds(0.0))
    assert refusal.what == "request id a is in use"
    world.run()
    assert world.output["a"] == world.expected_output("a")


@pytest.mark.parametrize("steps", [0, 1, 2])
def test_a_cancelled_request_gives_its_blocks_back_at_once(steps):
    world = World(small())
    world.arrive(max_tokens=20)
    for _ in range(steps):
        world.step()
    finish = only(world.cancel("a"), Finish)
    assert (finish.reason, finish.num_output) == (FinishReason.CANCELLED, steps)
    assert world.stats().num_owned_blocks == 0
    assert world.stats().num_running == 0


def test_a_waiting_request_may_be_cancelled():
    world = World(small(max_running=1))
    world.arrive("a")
    world.arrive("b")
    assert only(world.cancel("b"), Finish).num_output == 0
    assert world.stats().num_waiting == 0


def test_cancelling_who_is_not_there_does_nothing():
    assert build(small()).handle(Cancel(request=RequestId("x")), Seconds(0.0)) == []


def test_an_urgent_request_goes_before_those_that_wait():
    world = World(small(max_running=1))
    world.arrive("a", max_tokens=1)
    world.arrive("b", max_tokens=1)
    world.arrive("c", max_tokens=1, priority=-1)
    world.run()
    assert list(world.ended) == ["a", "c", "b"]


def test_nothing_waits_for_ever_behind_a_stream_of_urgent_requests():
    world = World(small(max_running=1))
    world.arrive("patient", max_tokens=1, priority=5)
    world.arrive("first", max_tokens=1)
    for second in range(100):
        world.now = float(second)
        for number in range(2):  # more than one row can serve
            if world.engine.num_waiting < 50:
                world.arrive(f"urgent-{second}-{number}", max_tokens=1, priority=0)
        world.step()
        if "patient" in world.ended:
            break
    assert second <= 60, "ten seconds a priority, and then its turn"
    assert "patient" in world.ended


@pytest.mark.parametrize(
    ("event", "what"),
    [
        (done(0), "group 0 answered step 0, and none is due"),
        (StepDone(group=GroupId(1), plan=PlanId(0), ranks=()), "there is no group 1"),
        (RankLost(group=GroupId(-1), rank=RankId(0)), "there is no group -1"),
        (RankLost(group=GroupId(0), rank=RankId(1)), "group 0 has no rank 1"),
        (RankJoined(group=GroupId(0), rank=RankId(-1)), "group 0 has no rank -1"),
    ],
)
def test_what_cannot_have_happened(event, what):
    with pytest.raises(SpecError, match=what):
        build(small()).handle(event, Seconds(0.0))


@pytest.mark.parametrize(
    ("event", "what"),
    [
        (done(1, 5), "group 0 answered step 1, and 0 is due"),
        (done(0), r"group 0 sampled \[0\] tokens by rank in step 0, and \[1\] were asked for"),
        (done(0, 5, 6), r"group 0 sampled \[2\] tokens"),
        (StepDone(group=GroupId(0), plan=PlanId(0), ranks=()), r"group 0 sampled \[\] tokens"),
    ],
)
def test_a_wrong_answer_is_refused_and_changes_nothing(event, what):
    engine = build(small())
    engine.handle(Arrive(request=request()), Seconds(0.0))
    with pytest.raises(SpecError, match=what):
        engine.handle(event, Seconds(0.0))
    assert only(engine.handle(done(0, 5), Seconds(0.0)), Emit).tokens.tolist() == [5]
