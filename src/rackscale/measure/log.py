"""From the lines of a log to a record of each request.

`now` of an entry is when its event happened and its commands went out, so a token came at the `now` of the
`Emit` that carries it.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TypeVar, assert_never

from msgspec import DecodeError, Struct

from rackscale.core import (
    Arrive,
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
    decode_json,
)
from rackscale.measure.record import Outcome, RequestRecord
from rackscale.specs import DeploymentSpec

T = TypeVar("T")


class _Header(Struct, frozen=True, kw_only=True):
    deployment: DeploymentSpec


class _Entry(Struct, frozen=True, kw_only=True):
    now: Seconds
    event: Event
    commands: tuple[Command, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class LogRecords:
    """What a log says. requests: by arrival. decode_batch_per_rank: sequences that decoded in a rank's
    step, averaged over those where one did; None where none did."""

    deployment: DeploymentSpec
    requests: tuple[RequestRecord, ...]
    decode_batch_per_rank: float | None


@dataclass(kw_only=True, slots=True)
class _Story:
    """A record in the making."""

    request: Request
    arrived_s: Seconds
    token_times_s: list[Seconds] = field(default_factory=list)
    outcome: Outcome = Outcome.LOST
    ended_s: Seconds | None = None
    num_cached: int = 0

    def end(self, outcome: Outcome, now: Seconds) -> None:
        self.outcome, self.ended_s = outcome, now

    def record(self) -> RequestRecord:
        return RequestRecord(
            id=self.request.id,
            outcome=self.outcome,
            arrived_s=self.arrived_s,
            ended_s=self.ended_s,
            token_times_s=tuple(self.token_times_s),
            num_prompt=len(self.request.prompt),
            num_cached=self.num_cached,
        )


class _Reader:
    def __init__(self) -> None:
        self.stories: list[_Story] = []
        self._living: dict[RequestId, _Story] = {}
        self._num_decodes = self._num_decode_steps = 0

    @property
    def decode_batch_per_rank(self) -> float | None:
        return self._num_decodes / self._num_decode_steps if self._num_decode_steps else None

    def read(self, entry: _Entry) -> None:
        if isinstance(entry.event, Arrive):
            self._arrive(entry, entry.event.request)
        for command in entry.commands:
            match command:
                case Emit():
                    for request in command.requests:
                        self._living[request].token_times_s.append(entry.now)
                case Finish():
                    self._finish(command, entry.now)
                case RunStep():
                    self._count(command)
                case Refuse() | PlaceExperts():
                    pass  # only what arrives is refused, and then at once
                case _:
                    assert_never(command)

    def _arrive(self, entry: _Entry, request: Request) -> None:
        """A request whose id is in use is refused, and is not the one that has the id."""
        story = _Story(request=request, arrived_s=entry.now)
        self.stories.append(story)
        if any(isinstance(command, Refuse) for command in entry.commands):
            story.end(Outcome.REFUSED, entry.now)
        else:
            self._living[request.id] = story

    def _finish(self, finish: Finish, now: Seconds) -> None:
        story = self._living.pop(finish.request)
        story.num_cached = finish.num_cached
        cancelled = finish.reason is FinishReason.CANCELLED
        story.end(Outcome.CANCELLED if cancelled else Outcome.FINISHED, now)

    def _count(self, step: RunStep) -> None:
        for rank in step.plan.ranks:
            num_decodes = int((rank.num_new == 1).sum())
            self._num_decodes += num_decodes
            self._num_decode_steps += num_decodes > 0


def read_log(lines: Iterable[bytes]) -> LogRecords:
    """The records of a log's requests.

    A last line without its newline was being written when the writer was killed, and is left out.
    Raises SpecError naming the line that cannot be read, or that speaks of a request that never came.
    """
    lines = iter(lines)
    deployment = _decode(next(lines, b""), 1, _Header).deployment
    reader = _Reader()
    for number, line in enumerate(lines, start=2):
        if not line.endswith(b"\n"):
            break
        try:
            reader.read(_decode(line, number, _Entry))
        except KeyError as error:
            raise SpecError(
                f"line {number} speaks of request {error}, which is not there", hint="give a whole log"
            ) from None
    return LogRecords(
        deployment=deployment,
        requests=tuple(story.record() for story in reader.stories),
        decode_batch_per_rank=reader.decode_batch_per_rank,
    )


def _decode(line: bytes, number: int, kind: type[T]) -> T:
    try:
        return decode_json(line, kind)
    except DecodeError as error:
        raise SpecError(f"line {number} cannot be read ({error})", hint="give a `--log` file") from None
