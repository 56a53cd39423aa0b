"""Replay: a fresh engine, fed a log's events, must give the log's commands."""

from collections.abc import Iterable
from dataclasses import dataclass

from rackscale.core import encode_json
from rackscale.engine.engine import build
from rackscale.engine.log import read_entries, read_header


@dataclass(frozen=True, kw_only=True, slots=True)
class ReplayReport:
    """events: how many were replayed. line: of the first difference, or None; expected is what the log
    has there and actual what the engine said, both JSON."""

    events: int
    line: int | None = None
    expected: str | None = None
    actual: str | None = None

    @property
    def same(self) -> bool:
        return self.line is None


def replay(lines: Iterable[bytes]) -> ReplayReport:
    """Replay a log up to the first difference. Raises SpecError where it cannot be read."""
    lines = iter(lines)
    engine = build(read_header(lines))
    events = 0
    for number, entry in enumerate(read_entries(lines), start=2):
        actual = encode_json(tuple(engine.handle(entry.event, entry.now)))
        expected = encode_json(entry.commands)
        events += 1
        if actual != expected:
            return ReplayReport(
                events=events, line=number, expected=expected.decode(), actual=actual.decode()
            )
    return ReplayReport(events=events)
