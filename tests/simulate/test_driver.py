"""The engine under a virtual clock: times by hand, the same run every time, and nothing lost with a rank."""

import pytest

from rackscale.core import (
    Arrive,
    Finish,
    GroupId,
    RankId,
    RankJoined,
    RankLost,
    Request,
    RequestId,
    SpecError,
)
from rackscale.engine import build, replay
from rackscale.measure import measure, read_log
from rackscale.simulate.driver import Driver
from rackscale.specs import DeploymentSpec, GroupSpec, Role


class Costs:
    """A step takes 10 ms and 1 ms for each token of its fullest rank."""

    def step(self, plan):
        return 0.01 + 0.001 * max(int(rank.num_new.sum()) for rank in plan.ranks)


def deployment(*roles, **fields):
    sizes = {"num_ranks": 2, "num_blocks": 64, "max_running": 8, "max_batched_tokens": 64}
    groups = tuple(GroupSpec(role=role, **sizes) for role in roles or (Role.MIXED,))
    return DeploymentSpec(model="none", groups=groups, block_size=4, max_model_len=128, **fields)


def arrive(name, prompt=8, tokens=5):
    ids = tuple(range(100 * int(name), 100 * int(name) + prompt))
    return Arrive(request=Request(id=RequestId(name), prompt=ids, max_tokens=tokens))


def played(spec, *events, costs=None):
    lines = []
    driver = Driver(build(spec), costs or Costs(), log=lines.append)
    for when_s, event in events:
        driver.at(when_s, event)
    driver.run()
    return driver, lines


def test_one_request_takes_its_steps():
    driver, lines = played(deployment(max_in_flight=1), (1.0, arrive("0", prompt=8, tokens=5)))
    (record,) = read_log(lines).requests
    first = 1.0 + 0.01 + 0.008
    assert record.arrived_s == 1.0
    assert record.token_times_s == pytest.approx([first + 0.011 * number for number in range(5)])
    assert (driver.now_s, driver.num_living) == (pytest.approx(first + 0.044), 0)


def test_the_same_run_writes_the_same_log_and_it_replays():
    spec = deployment(Role.PREFILL, Role.DECODE, Role.DECODE)
    events = [(0.005 * number, arrive(str(number), prompt=3 + number % 40)) for number in range(30)]
    _, first = played(spec, *events)
    _, second = played(spec, *events)
    assert first == second
    report = replay(first)
    assert report.same
    assert report.events == len(first) - 1


def test_nothing_is_lost_with_a_rank():
    group, rank = GroupId(0), RankId(1)
    loss = [(0.1, RankLost(group=group, rank=rank)), (0.3, RankJoined(group=group, rank=rank))]
    events = [(0.01 * number, arrive(str(number))) for number in range(20)]
    driver, lines = played(deployment(), *events, *loss)
    found = measure(read_log(lines).requests)
    assert (found.counts.finished, found.counts.lost, driver.num_living) == (20, 0, 0)
    assert found.num_output_tokens == 100
    assert replay(lines).same


def test_a_listener_may_plan_what_comes_next():
    """Closed load: each end brings the next request."""
    spec, waiting, ended = deployment(), [arrive(str(number)) for number in range(1, 9)], []

    def told(now_s, commands):
        for command in commands:
            if isinstance(command, Finish):
                ended.append(now_s)
                if waiting:
                    driver.at(now_s, waiting.pop(0))

    driver = Driver(build(spec), Costs(), told=told)
    driver.at(0.0, arrive("0"))
    driver.run()
    assert len(ended) == 9
    assert ended == sorted(ended)


def test_it_stops_where_it_is_told_and_goes_on():
    driver = Driver(build(deployment()), Costs())
    driver.at(0.0, arrive("0"))
    driver.at(5.0, arrive("1"))
    driver.run(until_s=1.0)
    assert (driver.now_s < 1.0, driver.num_living) == (True, 0)
    driver.run()
    assert driver.now_s > 5.0


def test_times_do_not_fall():
    driver = Driver(build(deployment()), Costs())
    driver.at(2.0, arrive("0"))
    driver.run()
    for when_s in (1.0, float("nan")):
        with pytest.raises(SpecError, match="let times never fall"):
            driver.at(when_s, arrive("1"))
