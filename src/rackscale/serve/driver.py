"""The driver of real processes: events from clients and ranks into the engine, commands out to them."""

import asyncio
from collections.abc import Sequence
from typing import BinaryIO, NoReturn

from rackscale.core import (
    Arrive,
    Cancel,
    Command,
    Emit,
    Event,
    Finish,
    Refuse,
    Request,
    RequestId,
    RunStep,
    Seconds,
    StepDone,
    StepPlan,
)
from rackscale.engine import Engine, entry_line, header_line
from rackscale.runtime.answer import TokenLogprobs
from rackscale.serve.metrics import Metrics
from rackscale.serve.rank_link import RankLink
from rackscale.serve.stream import Stream


class Driver:
    """One engine and the rank of its one group."""

    def __init__(self, engine: Engine, link: RankLink, metrics: Metrics, log: BinaryIO | None) -> None:
        self.engine = engine
        self._link, self._metrics, self._log = link, metrics, log
        self._streams: dict[RequestId, tuple[Stream, int]] = {}
        self._in_flight: list[StepPlan] = []
        if log is not None:
            log.write(header_line(engine.deployment))

    async def run(self) -> NoReturn:
        """Bring answers to the engine, for ever. Raises RankLostError where the rank dies."""
        while True:
            answer = await self._link.answer()
            step = self._in_flight.pop(0)
            event = StepDone(group=step.group, plan=step.plan, ranks=(answer.result,))
            self._feed(event, answer.logprobs)

    def submit(self, requests: Sequence[Request], stream: Stream) -> None:
        """Requests, one for each of the stream's choices."""
        for index, request in enumerate(requests):
            self._streams[request.id] = (stream, index)
            self._metrics.arrived(request.id, self._now())
            self._feed(Arrive(request=request))

    def cancel(self, requests: Sequence[Request]) -> None:
        """The client is gone: what has not ended ends now."""
        for request in requests:
            if request.id in self._streams:
                self._feed(Cancel(request=request.id))

    def end_all(self, why: str) -> None:
        """No request gets another token: tell every client why."""
        for stream, _ in self._streams.values():
            stream.lose(why)

    def _now(self) -> Seconds:
        return Seconds(asyncio.get_running_loop().time())

    def _feed(self, event: Event, logprobs: Sequence[TokenLogprobs] = ()) -> None:
        now = self._now()
        commands = self.engine.handle(event, now)
        if self._log is not None:
            self._log.write(entry_line(now, event, commands))
            self._log.flush()
        try:
            for command in commands:
                self._carry_out(command, now, logprobs)
        except BaseException:
            self._link.kill()  # the engine believes in what was not done: no later step can be right
            raise

    def _carry_out(self, command: Command, now: Seconds, logprobs: Sequence[TokenLogprobs]) -> None:
        match command:
            case RunStep(plan=plan):
                self._in_flight.append(plan)
                self._link.send(plan.ranks[0])
            case Emit():
                self._emit(command, now, {entry.sample: entry for entry in logprobs})
            case Finish():
                stream, index = self._streams.pop(command.request)
                stream.put_finish(index, command)
                self._metrics.finished(command, now)
            case Refuse():
                stream, _ = self._streams.pop(command.request)
                stream.put_refusal(command)
                self._metrics.refused(command)

    def _emit(self, emit: Emit, now: Seconds, logprobs: dict[int, TokenLogprobs]) -> None:
        samples = emit.samples.tolist()
        for request, token, sample in zip(emit.requests, emit.tokens.tolist(), samples, strict=True):
            stream, index = self._streams[request]
            stream.put_token(index, token, logprobs.get(sample))
            self._metrics.token(request, now)
