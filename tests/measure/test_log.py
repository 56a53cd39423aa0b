import pytest
from world import World, small

from rackscale.core import (
    Arrive,
    Cancel,
    Emit,
    Finish,
    FinishReason,
    GroupId,
    PlanId,
    RankPlan,
    RankResult,
    Refuse,
    RefuseReason,
    Request,
    RequestId,
    RunStep,
    Seconds,
    SpecError,
    StepDone,
    StepPlan,
    column,
    encode_json,
)
from rackscale.measure import Outcome, measure, read_log
from rackscale.specs import DeploymentSpec, GroupSpec

DEPLOYMENT = DeploymentSpec(
    model="m",
    groups=(GroupSpec(num_blocks=8, max_running=2, max_batched_tokens=16),),
    max_model_len=32,
)
HEADER = encode_json({"deployment": DEPLOYMENT}) + b"\n"


def line(now, event, *commands):
    return encode_json({"now": Seconds(now), "event": event, "commands": commands}) + b"\n"


def arrive(name, num_prompt=2):
    return Arrive(request=Request(id=RequestId(name), prompt=(1,) * num_prompt, max_tokens=9))


def done(plan=0):
    result = RankResult(tokens=column(), expert_loads=column())
    return StepDone(group=GroupId(0), plan=PlanId(plan), ranks=(result,))


def emit(*names):
    return Emit(requests=names, tokens=column([7] * len(names)), samples=column(range(len(names))))


def finish(name, reason=FinishReason.STOP, num_cached=0):
    return Finish(request=name, reason=reason, num_prompt=2, num_cached=num_cached, num_output=2)


def refuse(name):
    return Refuse(request=name, reason=RefuseReason.QUEUE_FULL, what="full", hint="later")


def run(*num_new):
    zeros = column([0] * len(num_new))
    rank = RankPlan(
        rows=zeros,
        num_computed=zeros,
        num_new=column(num_new),
        samples=zeros,
        block_rows=column(),
        block_indices=column(),
        block_ids=column(),
    )
    return RunStep(plan=StepPlan(plan=PlanId(0), group=GroupId(0), ranks=(rank,)))


def read(*lines):
    return read_log([HEADER, *lines])


def test_a_request_from_its_arrival_to_its_end():
    log = read(
        line(1.0, arrive("a")),
        line(2.0, done(), emit("a")),
        line(2.5, done(), emit("a"), finish("a", num_cached=1)),
    )
    assert log.deployment == DEPLOYMENT
    (record,) = log.requests
    assert (record.arrived_s, record.token_times_s, record.ended_s) == (1.0, (2.0, 2.5), 2.5)
    assert (record.outcome, record.num_prompt, record.num_cached) == (Outcome.FINISHED, 2, 1)


@pytest.mark.parametrize(
    ("end", "outcome"),
    [
        (finish("a", FinishReason.LENGTH), Outcome.FINISHED),
        (finish("a", FinishReason.CANCELLED), Outcome.CANCELLED),
    ],
)
def test_how_requests_end(end, outcome):
    (record,) = read(line(1.0, arrive("a")), line(2.0, Cancel(request="a"), end)).requests
    assert record.outcome is outcome


def test_what_has_no_end_is_lost():
    (record,) = read(line(1.0, arrive("a")), line(2.0, done(), emit("a"))).requests
    assert (record.outcome, record.ended_s, record.num_output) == (Outcome.LOST, None, 1)


def test_a_refusal_is_of_the_request_that_arrives_and_not_of_the_one_that_has_its_id():
    first, second = read(
        line(1.0, arrive("a")),
        line(2.0, arrive("a"), refuse("a")),
        line(3.0, done(), emit("a"), finish("a")),
    ).requests
    assert (first.outcome, first.num_output) == (Outcome.FINISHED, 1)
    assert (second.outcome, second.arrived_s, second.ended_s) == (Outcome.REFUSED, 2.0, 2.0)


def test_how_many_decode_together():
    log = read(line(1.0, arrive("a"), run(20, 1, 1)), line(2.0, done(), run(1)), line(3.0, done(), run(9)))
    assert log.decode_batch_per_rank == 1.5
    assert read().decode_batch_per_rank is None


def test_a_last_line_that_was_not_written_to_its_end_is_left_out():
    log = read(line(1.0, arrive("a")), line(2.0, done(), emit("a"))[:-3])
    assert log.requests[0].num_output == 0


@pytest.mark.parametrize(
    ("lines", "what"),
    [
        ([], "line 1 cannot be read"),
        ([b"{}\n"], "line 1 cannot be read"),
        ([HEADER, b"{\n"], "line 2 cannot be read"),
        ([HEADER, line(1.0, done(), emit("z"))], "line 2 speaks of request 'z', which is not there"),
        ([HEADER, line(1.0, done(), finish("z"))], "line 2 speaks of request 'z'"),
    ],
)
def test_what_is_no_log(lines, what):
    with pytest.raises(SpecError, match=what):
        read_log(lines)


def test_an_engines_own_log():
    world = World(small(max_running=2))
    for number in range(5):
        world.now = float(number)
        world.arrive(f"r{number}", prompt=range(9), max_tokens=6)
        world.step()
    world.cancel("r4")
    world.run()
    log = read_log(world.log)
    assert log.deployment == world.deployment
    assert {record.id: record.num_output for record in log.requests} == {
        name: len(output) for name, output in world.output.items()
    }
    counts = measure(log.requests).counts
    assert (counts.arrived, counts.finished, counts.cancelled) == (5, 4, 1)
