"""The log: a header with the deployment, then a line of JSON for every event and what came of it."""

from collections.abc import Iterable, Iterator

from msgspec import DecodeError as JsonError
from msgspec import Struct, ValidationError

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


def read_header(lines: Iterator[bytes]) -> DeploymentSpec:
    """The deployment that a log is of. Raises SpecError where the first line is no header."""
    try:
        return decode_json(next(lines, b""), Header).deployment
    except (JsonError, ValidationError) as error:
        raise SpecError(f"line 1 is no log header ({error})", hint="give a `--log` file") from None


def read_entries(lines: Iterator[bytes]) -> Iterator[Entry]:
    """The entries after the header, each with its line number.

    A last line without its newline was being written when the writer was killed: it is left out.
    Raises SpecError naming the line that cannot be read.
    """
    for number, line in enumerate(lines, start=2):
        if not line.endswith(b"\n"):
            return
        try:
            yield decode_json(line, Entry)
        except (JsonError, ValidationError) as error:
            raise SpecError(
                f"line {number} is no log entry ({error})", hint="the log is damaged there"
            ) from None
