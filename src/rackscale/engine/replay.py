"""Replay: a fresh engine, fed a log's events, must give the log's commands."""

from collections.abc import Iterable
from dataclasses import dataclass

from rackscale.core import SpecError, encode_json
from rackscale.engine.build import build
from rackscale.engine.engine import Engine
from rackscale.engine.log import Entry, read_entry, read_header


@dataclass(frozen=True, kw_only=True, slots=True)
class ReplayReport:
    """events: how many were replayed. line: of the first difference, or None; expected is what the log
    has there and actual what the engine said, both JSON. truncated: the last line was not written to
    its end, as after a kill, and was left out."""

    events: int
    line: int | None = None
    expected: str | None = None
    actual: str | None = None
    truncated: bool = False

    @property
    def same(self) -> bool:
        return self.line is None


def replay(lines: Iterable[bytes]) -> ReplayReport:
    """Replay a log up to the first difference.

    Raises SpecError naming the line that cannot be read, or whose event cannot have happened.
    """
    lines = iter(lines)
    engine = build(read_header(next(lines, b"")))
    events = 0
    for number, line in enumerate(lines, start=2):
        entry = read_entry(line, number)
        if entry is None:
            return ReplayReport(events=events, truncated=True)
        events += 1
        actual, expected = _handle(engine, entry, number), encode_json(entry.commands)
        if actual != expected:
            return ReplayReport(
                events=events, line=number, expected=expected.decode(), actual=actual.decode()
            )
    return ReplayReport(events=events)


def _handle(engine: Engine, entry: Entry, number: int) -> bytes:
    try:
        return encode_json(tuple(engine.handle(entry.event, entry.now)))
    except SpecError as error:
        raise SpecError(f"line {number}: {error.what}", hint=error.hint) from None
