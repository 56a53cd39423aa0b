"""A safetensors file that is written piece by piece, its header first."""

import json
import os
import struct
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Self

from rackscale.checkpoint.quantizer.layouts import Entry
from rackscale.checkpoint.safetensors_file import BITS_OF_DTYPE

ALIGNMENT = 64  # of the first tensor; the others follow without gaps, as the format demands


class ShardFile:
    """Written under another name; `finish` gives it its own. Any thread may write any piece."""

    def __init__(self, path: Path, entries: Iterable[Entry]) -> None:
        self._path = path
        self._draft = path.with_name(f"{path.name}.draft")
        # Wide dtypes first: then all are aligned.
        ordered = sorted(entries, key=lambda entry: -BITS_OF_DTYPE[entry.dtype])
        header: dict[str, object] = {"__metadata__": {"format": "pt"}}
        starts: dict[str, int] = {}
        size = 0
        for entry in ordered:
            starts[entry.name] = size
            size += entry.num_bytes
            offsets = [starts[entry.name], size]
            header[entry.name] = {"dtype": entry.dtype, "shape": list(entry.shape), "data_offsets": offsets}
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-(len(text) + 8) % ALIGNMENT)
        self._first = 8 + len(text)
        self._starts = starts
        self.num_bytes = self._first + size
        self._file = os.open(self._draft, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o644)
        os.truncate(self._file, self.num_bytes)
        self._write(struct.pack("<Q", len(text)) + text, 0)

    def write(self, entry: Entry, content: bytes | memoryview, offset: int = 0) -> None:
        """Bytes of a tensor, from offset on."""
        assert offset + len(content) <= entry.num_bytes, "a piece fits its tensor"
        self._write(content, self._first + self._starts[entry.name] + offset)

    def finish(self) -> None:
        """On disk, under its name."""
        os.fsync(self._file)
        os.posix_fadvise(self._file, 0, 0, os.POSIX_FADV_DONTNEED)
        self._draft.rename(self._path)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._file)

    def _write(self, content: bytes | memoryview, offset: int) -> None:
        view = memoryview(content)
        while view:
            written = os.pwrite(self._file, view, offset)
            view = view[written:]
            offset += written
