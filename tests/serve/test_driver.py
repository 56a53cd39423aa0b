"""Commands reach streams, and nobody is looked for who is gone."""

import asyncio
import io

import pytest

from rackscale.core import RankPlan, RankResult, Request, RequestId, column
from rackscale.engine import build, replay
from rackscale.runtime.answer import RankAnswer, TokenLogprobs
from rackscale.serve.driver import Driver
from rackscale.serve.metrics import Metrics
from rackscale.serve.stream import Refused, Stream
from rackscale.specs import DeploymentSpec, GroupSpec


class FakeLink:
    """A rank that answers every sample with token 7, when it is asked to."""

    def __init__(self):
        self.plans = asyncio.Queue()
        self.open = asyncio.Event()
        self.killed = False
        self.broken = False

    def send(self, plan: RankPlan):
        if self.broken:
            raise OverflowError("a plan that has no wire form")
        self.plans.put_nowait(plan)

    def kill(self):
        self.killed = True

    async def answer(self):
        await self.open.wait()
        plan = await self.plans.get()
        num_samples = int(plan.samples.sum())
        logprobs = tuple(TokenLogprobs(sample=index, logprob=-1.0) for index in range(num_samples))
        return RankAnswer(
            result=RankResult(tokens=column([7] * num_samples), expert_loads=column()), logprobs=logprobs
        )


class Served:
    """A driver with a fake rank."""

    def __init__(self, max_waiting=8):
        group = GroupSpec(num_blocks=64, max_running=4, max_batched_tokens=64)
        self.engine = build(
            DeploymentSpec(
                model="m", groups=(group,), block_size=16, max_model_len=64, max_waiting=max_waiting
            )
        )
        self.link, self.metrics, self.log = FakeLink(), Metrics(self.engine), io.BytesIO()
        self.driver = Driver(self.engine, self.link, self.metrics, self.log)

    def submit(self, *names, max_tokens=4):
        stream = Stream(len(names), 0.0, lambda: 0.0)
        requests = [
            Request(id=RequestId(name), prompt=(5, 6, number), max_tokens=max_tokens)
            for number, name in enumerate(names)
        ]
        self.driver.submit(requests, stream)
        return requests, stream

    async def read(self, stream):
        running = asyncio.ensure_future(self.driver.run())
        self.link.open.set()
        try:
            return [part async for part in stream.parts()]
        finally:
            running.cancel()

    def replays(self):
        return replay(self.log.getvalue().splitlines(keepends=True)).same


def test_tokens_and_ends_reach_their_choice():
    async def scenario():
        served = Served()
        _, stream = served.submit("a", "b")
        parts = await served.read(stream)
        for index in (0, 1):
            own = [part for part in parts if part.index == index]
            assert [token for part in own for token in part.tokens] == [7] * 4
            assert [entry.logprob for part in own for entry in part.logprobs] == [-1.0] * 4
            assert own[-1].finish.num_output == 4
        assert served.replays()
        assert b"rackscale_output_tokens_total 8.0" in served.metrics.text()

    asyncio.run(scenario())


def test_answers_for_cancelled_requests_find_nobody_and_need_nobody():
    async def scenario():
        served = Served()
        gone, _ = served.submit("a", "b", max_tokens=40)
        _, stream = served.submit("c")
        served.driver.cancel(gone)  # with steps of theirs in flight
        served.driver.cancel(gone)  # and again, as a worker's end does
        parts = await served.read(stream)
        assert [token for part in parts for token in part.tokens] == [7] * 4
        assert served.engine.stats().groups[0].num_owned_blocks == 0
        assert served.replays()
        assert b'rackscale_requests_ended_total{reason="cancelled"} 2.0' in served.metrics.text()

    asyncio.run(scenario())


def test_choices_that_were_refused_and_those_that_were_not():
    async def scenario():
        served = Served(max_waiting=1)
        requests, stream = served.submit("a", "b", "c", "d", "e", "f", "g", "h")
        with pytest.raises(Refused):
            await served.read(stream)
        served.driver.cancel(requests)
        _, stream = served.submit("i")
        assert (await served.read(stream))[-1].finish.num_output == 4
        assert served.engine.stats().groups[0].num_owned_blocks == 0
        assert served.replays()

    asyncio.run(scenario())


def test_a_command_that_cannot_be_carried_out_ends_the_rank():
    async def scenario():
        served = Served()
        served.link.broken = True
        with pytest.raises(OverflowError):
            served.submit("a")
        assert served.link.killed

    asyncio.run(scenario())
