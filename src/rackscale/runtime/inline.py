"""The driver that waits: engine and ranks one step after the other, without a server."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from rackscale.core import (
    Arrive,
    CapacityError,
    Command,
    Emit,
    Event,
    Finish,
    FinishReason,
    PlaceExperts,
    Refuse,
    Request,
    RequestId,
    RunStep,
    Seconds,
    SpecError,
    StepDone,
    StepPlan,
    TokenId,
)
from rackscale.engine import Engine
from rackscale.runtime.answer import RankAnswer, TokenLogprobs, joined_logprobs
from rackscale.runtime.rank import Rank

Clock = Callable[[], float]


@dataclass(kw_only=True, slots=True)
class Completion:
    """What became of a request. times_s: when each token came, by the driver's clock."""

    arrived_s: float
    token_ids: list[TokenId] = field(default_factory=list)
    logprobs: list[TokenLogprobs] = field(default_factory=list)
    times_s: list[float] = field(default_factory=list)
    finish: Finish | None = None

    @property
    def reason(self) -> FinishReason:
        """Why it ended; it has."""
        assert self.finish is not None, "the driver returns when all have ended"
        return self.finish.reason


class Ranks(Protocol):
    """Who performs steps."""

    def perform(self, step: StepPlan) -> list[RankAnswer]:
        """Run it on all ranks of its group; their answers, in order."""
        ...

    def place(self, placement: PlaceExperts) -> None:
        """From the group's next step on, experts are there."""
        ...


class OneRank:
    """The one rank of the one group, in this process."""

    def __init__(self, rank: Rank) -> None:
        self._rank = rank

    def perform(self, step: StepPlan) -> list[RankAnswer]:
        return [self._rank.step(step.ranks[0])]

    def place(self, placement: PlaceExperts) -> None:
        """It has them all."""


class InlineDriver:
    """Answers `RunStep` by having it performed. clock: seconds, never going back."""

    def __init__(self, engine: Engine, ranks: Ranks, clock: Clock) -> None:
        self.engine, self.ranks, self._clock = engine, ranks, clock
        self._completions: dict[RequestId, Completion] = {}

    def run(self, requests: Iterable[Request]) -> dict[RequestId, Completion]:
        """Serve the requests together to their ends.

        Raises SpecError or CapacityError where the engine refuses one.
        """
        self._completions = {}
        steps: list[StepPlan] = []
        for request in requests:
            self._completions[request.id] = Completion(arrived_s=self._clock())
            steps += self._feed(Arrive(request=request), ())
        while steps:
            step = steps.pop(0)
            answers = self.ranks.perform(step)
            event = StepDone(
                group=step.group, plan=step.plan, ranks=tuple(answer.result for answer in answers)
            )
            steps += self._feed(event, joined_logprobs(answers))
        return self._completions

    def _feed(self, event: Event, logprobs: Sequence[TokenLogprobs]) -> list[StepPlan]:
        now = self._clock()
        steps = []
        for command in self.engine.handle(event, Seconds(now)):
            if isinstance(command, RunStep):
                steps.append(command.plan)
            elif isinstance(command, PlaceExperts):
                self.ranks.place(command)
            else:
                self._note(command, now, logprobs)
        return steps

    def _note(self, command: Command, now: float, logprobs: Sequence[TokenLogprobs]) -> None:
        match command:
            case Emit():
                by_sample = {entry.sample: entry for entry in logprobs}
                for request, token, sample in zip(
                    command.requests, command.tokens.tolist(), command.samples.tolist(), strict=True
                ):
                    completion = self._completions[request]
                    completion.token_ids.append(token)
                    completion.times_s.append(now)
                    if sample in by_sample:
                        completion.logprobs.append(by_sample[sample])
            case Finish():
                self._completions[command.request].finish = command
            case Refuse():
                kind = SpecError if command.reason == "invalid" else CapacityError
                raise kind(command.what, hint=command.hint)
