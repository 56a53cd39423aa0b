"""The log: a header with the deployment, then a line of JSON for every event and what came of it."""

from collections.abc import Iterable

from msgspec import DecodeError as JsonError
from msgspec import Struct

from rackscale.core import Command, Event, Seconds, SpecError, decode_json, encode_json
from rackscale.specs import DeploymentSpec


class Header(Struct, frozen=True, kw_only=True):
    """The first line."""

    deployment: DeploymentSpec


class Entry(Struct, frozen=True, kw_only=True):
    """An event, when it happened, and the commands that it led to."""

    now: Seconds
    event: Event
    commands: tuple[Command, ...]


def header_line(deployment: DeploymentSpec) -> bytes:
    """The log's first line, newline included."""
    return encode_json(Header(deployment=deployment)) + b"\n"


def entry_line(now: Seconds, event: Event, commands: Iterable[Command]) -> bytes:
    """A later line, newline included."""
    return encode_json(Entry(now=now, event=event, commands=tuple(commands))) + b"\n"


def read_header(line: bytes) -> DeploymentSpec:
    """The deployment that a log is of, from its first line. Raises SpecError where it is no header."""
    try:
        return decode_json(line, Header).deployment
    except JsonError as error:
        raise SpecError(f"line 1 is no log header ({error})", hint="give a `--log` file") from None


def read_entry(line: bytes, number: int) -> Entry | None:
    """The entry on line `number` of a log, the header being line 1.

    None for a line without its newline: it was being written when the writer was killed.
    Raises SpecError naming the line where it cannot be read.
    """
    if not line.endswith(b"\n"):
        return None
    try:
        return decode_json(line, Entry)
    except JsonError as error:
        raise SpecError(f"line {number} is no log entry ({error})", hint="the log is damaged there") from None
