"""Events go into the engine and its log, commands to ranks and clients; a log is not worth a request."""

import io
import logging

from rackscale.core import FinishReason, RankResult, Request, RequestId, column
from rackscale.engine import build, replay
from rackscale.runtime.answer import RankAnswer, TokenLogprobs
from rackscale.serve.driver import Driver
from rackscale.serve.observer import Observer
from rackscale.specs import DeploymentSpec, GroupSpec

GROUP = 0


class FakeRanks:
    """Steps as they were given."""

    def __init__(self):
        self.plans, self.placements = [], []

    def perform(self, plan):
        self.plans.append(plan)

    def place(self, placement):
        self.placements.append(placement)


class FullDisk(io.BytesIO):
    """Takes so many lines. `num_tries`: how many were offered."""

    def __init__(self, num_lines):
        super().__init__()
        self.num_left, self.num_tries = num_lines, 0

    def write(self, line):
        self.num_tries += 1
        self.num_left -= 1
        if self.num_left < 0:
            raise OSError(28, "No space left on device")
        return super().write(line)

    def close(self):
        raise OSError(28, "No space left on device")


class Served:
    """A driver whose ranks answer every sample with token 7, when they are asked to."""

    def __init__(self, log=None, max_waiting=8):
        group = GroupSpec(num_blocks=64, max_running=4, max_batched_tokens=64)
        deployment = DeploymentSpec(
            model="m", groups=(group,), block_size=16, max_model_len=64, max_waiting=max_waiting
        )
        self.ranks, self.said, self.log = FakeRanks(), [], io.BytesIO() if log is None else log
        self.engine = build(deployment)
        self.driver = Driver(self.engine, self.ranks, Observer("m", [1]), self.said.append, self.log)

    def submit(self, *names, again=False, emitted=(), max_tokens=4):
        for number, name in enumerate(names):
            request = Request(id=RequestId(name), prompt=(5, 6, number), max_tokens=max_tokens)
            self.driver.submit(request, again=again, emitted=emitted)

    def answer_all(self):
        while self.ranks.plans:
            plan = self.ranks.plans.pop(0)
            num_samples = int(plan.ranks[0].samples.sum())
            logprobs = tuple(TokenLogprobs(sample=index, logprob=-1.0) for index in range(num_samples))
            result = RankResult(tokens=column([7] * num_samples), expert_loads=column())
            self.driver.step_done(plan, [RankAnswer(result=result, logprobs=logprobs)])

    def finishes(self):
        return {
            command.request: command
            for said in self.said
            for command in said.commands
            if type(command).__name__ == "Finish"
        }

    def num_blocks(self):
        return self.engine.stats().groups[0].num_owned_blocks


def is_replayed(log):
    return replay(log.getvalue().splitlines(keepends=True)).same


def test_no_step_before_the_group_is_up():
    served = Served()
    served.submit("a", "b")
    assert not served.ranks.plans
    served.driver.group_up(GROUP)
    served.answer_all()
    assert {name: end.num_output for name, end in served.finishes().items()} == {"a": 4, "b": 4}
    assert [entry.logprob for said in served.said for entry in said.logprobs] == [-1.0] * 8
    assert served.num_blocks() == 0
    assert is_replayed(served.log)


def test_steps_of_a_group_that_is_lost_are_done_again_and_no_token_comes_twice():
    served = Served()
    served.driver.group_up(GROUP)
    served.submit("a")
    served.ranks.plans.clear()
    served.driver.group_lost(GROUP)
    assert not served.ranks.plans
    served.driver.group_up(GROUP)
    served.answer_all()
    assert served.finishes()["a"].num_output == 4
    assert sum(len(said.logprobs) for said in served.said) == 4
    assert is_replayed(served.log)


def test_another_engine_goes_on_after_what_was_emitted():
    served = Served()
    served.submit("a", again=True, emitted=(7, 7, 7))
    served.driver.group_up(GROUP)
    served.answer_all()
    assert sum(len(said.logprobs) for said in served.said) == 1
    assert served.finishes()["a"].num_output == 4
    assert is_replayed(served.log)


def test_answers_for_cancelled_requests_find_nobody_and_need_nobody():
    served = Served()
    served.driver.group_up(GROUP)
    served.submit("a", "b", max_tokens=40)
    served.driver.cancel(RequestId("a"))  # with steps of its in flight
    served.driver.cancel(RequestId("a"))  # and again, as a worker's end does
    served.answer_all()
    assert served.finishes()["a"].reason is FinishReason.CANCELLED
    assert served.finishes()["b"].num_output == 40
    assert served.num_blocks() == 0
    assert is_replayed(served.log)


def test_a_full_queue_refuses_but_not_what_was_accepted_before():
    served = Served(max_waiting=1)
    served.submit("a", "b")
    served.submit("c", again=True)
    refused = [type(command).__name__ for said in served.said for command in said.commands]
    assert refused == ["Refuse"]
    assert served.engine.num_waiting == 2


def test_no_log():
    served = Served()
    quiet = Driver(served.engine, served.ranks, Observer("m", [1]), served.said.append, None)
    quiet.group_up(GROUP)


def test_a_full_disk_ends_the_log_and_nothing_else(caplog):
    caplog.set_level(logging.ERROR)
    log = FullDisk(3)
    served = Served(log)
    served.driver.group_up(GROUP)
    served.submit("a")
    served.answer_all()
    assert served.finishes()["a"].num_output == 4
    assert [record.message for record in caplog.records] == [
        "the log cannot be written (No space left on device): it ends here"
    ]
    assert log.num_tries == 4
    assert is_replayed(log)
