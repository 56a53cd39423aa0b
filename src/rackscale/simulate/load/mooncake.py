"""Mooncake's traces: a JSON object a line, with hashes of the prompts' blocks.

https://github.com/kvcache-ai/Mooncake, FAST25-release/traces.
"""

import json
from collections.abc import Iterator
from pathlib import Path

from rackscale.simulate.load.arrival import BLOCK_TOKENS, Arrival
from rackscale.simulate.load.trace_file import TraceFile

INTEGERS = ("timestamp", "input_length", "output_length")
HINT = 'a line is {"timestamp": 0, "input_length": 600, "output_length": 50, "hash_ids": [0, 1]}, times in ms'


def read_mooncake(path: Path, *, max_prompt: int, speed: float = 1.0) -> Iterator[Arrival]:
    """The trace's arrivals as they are read, their times divided by the speed.

    Raises SpecError, with the line, for a hole, what is no whole number, a time that is negative or falls,
    a prompt beyond max_prompt tokens, ids that are not one for each block (or none at all), an empty file.
    """
    trace = TraceFile(path, speed=speed, max_prompt=max_prompt)
    none_yet = True
    for line in trace.lines():
        arrival = _arrival(trace, line)
        none_yet = False
        yield arrival
    if none_yet:
        raise trace.empty()


def _arrival(trace: TraceFile, line: str) -> Arrival:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        raise trace.wrong("no JSON", hint=HINT) from None
    if not isinstance(row, dict):
        raise trace.wrong("no JSON object", hint=HINT)
    for name in (*INTEGERS, "hash_ids"):
        if name not in row:
            raise trace.wrong(f"{name} is missing", hint=HINT)
    for name in INTEGERS:
        if type(row[name]) is not int:
            raise trace.wrong(f"{name} is no whole number", hint=HINT)
    ids = row["hash_ids"]
    if not isinstance(ids, list) or any(type(block) is not int for block in ids):
        raise trace.wrong("hash_ids is no list of whole numbers", hint=HINT)
    num_prompt, num_output = row["input_length"], row["output_length"]
    trace.check_lengths(num_prompt, num_output)
    if ids and len(ids) != -(-num_prompt // BLOCK_TOKENS):
        raise trace.wrong(
            f"{len(ids)} hash_ids for a prompt of {num_prompt} tokens",
            hint=f"give one for each {BLOCK_TOKENS} tokens, or none",
        )
    try:
        time_s = row["timestamp"] / 1e3
    except OverflowError:
        raise trace.wrong("timestamp is out of range", hint=HINT) from None
    return Arrival(trace.time_s(time_s), num_prompt, num_output, tuple(ids))
