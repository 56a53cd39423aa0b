"""The folder that an output grows in, beside where it will be: locked, and taken up again after a death."""

import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rackscale.core import SpecError

JOURNAL = ".quantize.jsonl"
SCRATCH = ".scratch"


@dataclass(frozen=True, slots=True)
class Done:
    """A finished shard. error, weight: sums of squares over the matrices that were quantised in it."""

    shard: str
    num_bytes: int
    error: float
    weight: float


class Draft:
    """done: shards that an earlier run finished, by name."""

    def __init__(self, folder: Path, target: Path, journal: int, done: Mapping[str, Done]) -> None:
        self.folder, self.done = folder, done
        self._target, self._journal = target, journal

    @property
    def scratch(self) -> Path:
        """A folder for whoever measures before shards are written. It does not outlive the draft."""
        return self.folder / SCRATCH

    def add(self, done: Done) -> None:
        """Write down that a shard is finished. It is on disk when this returns."""
        line = [done.shard, done.num_bytes, done.error, done.weight]
        os.write(self._journal, json.dumps(line).encode() + b"\n")
        os.fsync(self._journal)

    @property
    def is_blank(self) -> bool:
        """Whether nothing is lost with it."""
        finished = any(self.folder.glob("*.safetensors"))
        return not finished and not (self.scratch.exists() and any(self.scratch.iterdir()))

    def publish(self) -> None:
        """Everything is there: the target appears."""
        shutil.rmtree(self.scratch, ignore_errors=True)
        (self.folder / JOURNAL).unlink()
        folder = os.open(self.folder, os.O_RDONLY)
        os.fsync(folder)
        os.close(folder)
        self.folder.rename(self._target)


@contextmanager
def open_draft(target: Path, identity: Mapping[str, Any]) -> Iterator[Draft]:
    """The draft of a target that is not there yet. identity: of the source and the options.

    Raises SpecError where the target is there, or where its draft is in use or of something else.
    """
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise SpecError(f"{target} is there already", hint="give another folder, or delete it")
    folder = target.with_name(f"{target.name}.partial")
    try:
        is_new = not folder.exists()
        folder.mkdir(parents=True, exist_ok=True)
        if not is_new and not (folder / JOURNAL).exists() and any(folder.iterdir()):
            raise SpecError(f"{folder} is in the way, and not of this program", hint="move it or delete it")
        journal = os.open(folder / JOURNAL, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
    except OSError as error:
        raise SpecError(
            f"{folder} cannot be written ({error.strerror})", hint="give another folder"
        ) from None
    try:
        try:
            fcntl.flock(journal, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SpecError(f"{folder} is being written by another run", hint="wait for it") from None
        draft = Draft(folder, target, journal, _read(folder, journal, json.dumps(identity, sort_keys=True)))
        try:
            yield draft
        finally:
            # Who gave wrong options may give others.
            if folder.exists() and draft.is_blank:
                shutil.rmtree(folder)
    finally:
        os.close(journal)


def _read(folder: Path, journal: int, identity: str) -> dict[str, Done]:
    """What the journal says is finished and is; a journal that is new gets its first line."""
    # A line that a death cut short has no end, and counts for nothing.
    *lines, rest = (folder / JOURNAL).read_text(encoding="utf-8").split("\n")
    os.truncate(journal, os.fstat(journal).st_size - len(rest.encode()))
    if not lines:
        os.write(journal, identity.encode() + b"\n")
        os.fsync(journal)
        return {}
    if lines[0] != identity:
        raise SpecError(
            f"{folder} was begun with another source or other options",
            hint="delete it to start anew, or give the options that it was begun with",
        )
    done = {}
    for line in lines[1:]:
        shard = Done(*json.loads(line))
        path = folder / shard.shard
        if path.exists() and path.stat().st_size == shard.num_bytes:
            done[shard.shard] = shard
    return done
