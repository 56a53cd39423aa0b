"""What is asked of an engine, and what one visit to it gives."""

import json
import os
import subprocess
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Protocol

POLL_S = 0.1
KIB_PER_GB = 1e9 / 1024
READ_BYTES = 2**24


class MissingError(Exception):
    """An engine cannot be had here. Its text is the reason."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Work:
    """prefill: lengths of prompts. batches: of decodes, each sequence with a prompt of `prompt` tokens and
    `tokens` new ones."""

    threads: int
    prefill: tuple[int, ...]
    batches: tuple[int, ...]
    prompt: int = 16
    tokens: int = 24


@dataclass(kw_only=True, slots=True)
class Visit:
    """One start of an engine. Tokens per second by length of prompt and by batch. load_s: until it can be
    asked, without imports. peak_gb: resident, at most. more: what only this engine says."""

    prefill: dict[int, float]
    decode: dict[int, float]
    load_s: float
    peak_gb: float = 0.0
    more: dict[str, object] = field(default_factory=dict)


class Peer(Protocol):
    """An engine with the files that it runs."""

    name: str
    weights: str
    heavy: bool  # so slow to start that it is not visited in every round

    def prepare(self) -> None:
        """Have it installed and its files made. Raises MissingError where that cannot be."""
        ...

    @property
    def version(self) -> str: ...

    @property
    def files(self) -> Sequence[Path]:
        """What it maps or reads when it starts."""
        ...

    def visit(self, work: Work) -> Visit:
        """Start it, ask it for the work, stop it."""
        ...


def watched(command: Sequence[str | Path], environment: dict[str, str]) -> tuple[str, float]:
    """What the command prints, and the most GB that it was resident with.

    Raises MissingError where it fails.
    """
    process = subprocess.Popen(
        [str(word) for word in command],
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    peak = [0.0]

    def watch() -> None:
        while process.poll() is None:
            peak[0] = max(peak[0], resident_gb(process.pid))
            time.sleep(POLL_S)

    watcher = threading.Thread(target=watch)
    watcher.start()
    out, err = process.communicate()
    watcher.join()
    if process.returncode:
        raise MissingError(f"{Path(str(command[0])).name} failed: {err.strip()[-300:]}")
    return out + err, peak[0]


def resident_gb(pid: int) -> float:
    """The most that a process was resident with until now; 0 where it has gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / KIB_PER_GB for line in lines if line.startswith("VmHWM")), 0.0)


def driven(command: Sequence[str | Path], work: Work, *more: str) -> Visit:
    """A visit by one of the drive_*.py scripts, whose last line is JSON."""
    words = [*command, json.dumps(asdict(work)), *more]
    text, peak = watched(words, {"OMP_NUM_THREADS": str(work.threads)})
    line = next(line for line in reversed(text.splitlines()) if line.startswith('{"visit"'))
    found = json.loads(line)["visit"]
    return Visit(
        prefill={int(key): value for key, value in found.pop("prefill").items()},
        decode={int(key): value for key, value in found.pop("decode").items()},
        load_s=found.pop("load_s"),
        peak_gb=peak,
        more=found,
    )


def warm(files: Sequence[Path]) -> None:
    """Have the files in the page cache."""
    for path in files:
        with path.open("rb", buffering=0) as file:
            while file.read(READ_BYTES):
                pass
