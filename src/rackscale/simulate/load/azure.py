"""Azure's traces of language models: a CSV of dates and lengths.

https://github.com/Azure/AzurePublicDataset, AzureLLMInferenceDataset2023.md.
"""

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from rackscale.simulate.load.arrival import Arrival
from rackscale.simulate.load.trace_file import TraceFile

HEADER = "TIMESTAMP,ContextTokens,GeneratedTokens"
HINT = f"the first line is {HEADER}, and a line is 2023-11-16 18:17:03.9799600,4808,10"
INTEGER = re.compile(r"-?[0-9]{1,18}")


def read_azure(path: Path, *, max_prompt: int, speed: float = 1.0) -> Iterator[Arrival]:
    """The trace's arrivals as they are read: times from the first, to the microsecond, over the speed.

    Raises SpecError, with the line, for another header, a hole, what is no whole number, a time that is none
    or falls, a prompt beyond max_prompt tokens, an empty file.
    """
    trace = TraceFile(path, speed=speed, max_prompt=max_prompt)
    lines = trace.lines()
    header = next(lines, None)
    if header is not None and header.removeprefix("\ufeff") != HEADER:
        raise trace.wrong("no header of an Azure trace", hint=HINT)
    start: datetime | None = None
    for line in lines:
        fields = line.split(",")
        if len(fields) != 3 or not all(fields):
            raise trace.wrong("not three fields", hint=HINT)
        if not all(INTEGER.fullmatch(field) for field in fields[1:]):
            raise trace.wrong("a length is no whole number", hint=HINT)
        num_prompt, num_output = int(fields[1]), int(fields[2])
        trace.check_lengths(num_prompt, num_output)
        time = _time(trace, fields[0])
        start = start or time
        yield Arrival(trace.time_s((time - start).total_seconds()), num_prompt, num_output)
    if start is None:
        raise trace.empty()


def _time(trace: TraceFile, text: str) -> datetime:
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise trace.wrong(f"{text} is no time", hint=HINT) from None
    return time if time.tzinfo else time.replace(tzinfo=UTC)
