"""The driver of real processes: events from clients and ranks into the engine, commands out to them."""

import logging
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import BinaryIO, Protocol

from rackscale.core import (
    Arrive,
    Cancel,
    Emit,
    Event,
    Finish,
    GroupId,
    PlaceExperts,
    RankId,
    RankJoined,
    RankLost,
    Refuse,
    Request,
    RequestId,
    RunStep,
    Seconds,
    StepDone,
    StepPlan,
    TokenId,
)
from rackscale.engine import Engine, entry_line, header_line
from rackscale.policy import PrefixJournal
from rackscale.runtime.answer import RankAnswer, TokenLogprobs, joined_logprobs
from rackscale.serve.engine_messages import Said
from rackscale.serve.observer import Observer

FIRST_RANK = RankId(0)  # a group is lost and joined as a whole

_LOG = logging.getLogger("rackscale.engine")


class Ranks(Protocol):
    """Who performs steps, by group."""

    def perform(self, plan: StepPlan) -> None:
        """Give the group a step."""
        ...

    def place(self, placement: PlaceExperts) -> None:
        """From the group's next step on, experts are there."""
        ...


class Driver:
    """One engine. Groups count as lost until they are up. say: what clients have to hear. journal: that the
    engine writes, if any."""

    def __init__(
        self,
        engine: Engine,
        ranks: Ranks,
        observer: Observer,
        say: Callable[[Said], None],
        log: BinaryIO | None,
        journal: PrefixJournal | None = None,
    ) -> None:
        self.engine, self._journal = engine, journal
        self._ranks, self._observer, self._say, self._log = ranks, observer, say, log
        self._write(header_line(engine.deployment))
        for number in range(len(engine.deployment.groups)):
            group = GroupId(number)
            self._feed(RankLost(group=group, rank=FIRST_RANK))
            placement = engine.placement(group)
            if placement is not None:
                ranks.place(placement)

    def submit(self, request: Request, *, again: bool, emitted: tuple[TokenId, ...]) -> None:
        """A request."""
        self._feed(Arrive(request=request, again=again, emitted=emitted))

    def cancel(self, request: RequestId) -> None:
        """The client is gone: what has not ended ends now."""
        self._feed(Cancel(request=request))

    def group_up(self, group: GroupId) -> None:
        """All ranks of the group take plans."""
        self._feed(RankJoined(group=group, rank=FIRST_RANK))

    def group_lost(self, group: GroupId) -> None:
        """No rank of the group lives."""
        self._feed(RankLost(group=group, rank=FIRST_RANK))

    def step_done(self, plan: StepPlan, answers: Sequence[RankAnswer]) -> None:
        """The group's oldest step is done."""
        self._observer.step_done(plan, answers)
        results = tuple(answer.result for answer in answers)
        event = StepDone(group=plan.group, plan=plan.plan, ranks=results)
        self._feed(event, joined_logprobs(answers))

    def _feed(self, event: Event, logprobs: Sequence[TokenLogprobs] = ()) -> None:
        now = Seconds(time.monotonic())  # uvloop's own clock counts milliseconds
        commands = self.engine.handle(event, now)
        if self._log is not None:
            self._write(entry_line(now, event, commands))
        said: list[Emit | Finish | Refuse] = []
        for command in commands:
            match command:
                case RunStep(plan=plan):
                    self._ranks.perform(plan)
                case PlaceExperts():
                    self._ranks.place(command)
                    self._observer.placed(command)
                case _:
                    said.append(command)
        blocks = () if self._journal is None else self._journal.take()
        if said or blocks:
            self._observer.said(said)
            self._say(
                Said(
                    commands=tuple(said),
                    logprobs=tuple(logprobs),
                    num_waiting=self.engine.num_waiting,
                    blocks=blocks,
                )
            )

    def _write(self, line: bytes) -> None:
        """To the log, if there is one. Where it takes no more it is given up: clients come first."""
        if self._log is None:
            return
        try:
            self._log.write(line)
            self._log.flush()
        except OSError as error:
            _LOG.error("the log cannot be written (%s): it ends here", error.strerror)
            self.close()

    def close(self) -> None:
        """End the log."""
        if self._log is not None:
            with suppress(OSError):
                self._log.close()
            self._log = None
