"""Reads a source's tensors into memory of our own, and lets go of the files' pages."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from rackscale.checkpoint.checkpoint import TORCH_DTYPES
from rackscale.checkpoint.metadata import Metadata
from rackscale.checkpoint.roles import Source
from rackscale.checkpoint.safetensors_file import TensorEntry
from rackscale.core import SpecError


class SourceFiles:
    """Open files. Reading by `pread` and not by a mapping: what is read is counted once, and ends when the
    tensor does."""

    def __init__(self, metadata: Metadata) -> None:
        self.metadata = metadata
        paths = {entry.file for entry in metadata.tensors.values()}
        self._files: dict[Path, int] = {path: os.open(path, os.O_RDONLY) for path in sorted(paths)}

    def close(self) -> None:
        for file in self._files.values():
            os.close(file)

    def read(self, entry: TensorEntry) -> Tensor:
        """A whole tensor."""
        return self._bytes(entry, entry.start, entry.end).view(TORCH_DTYPES[entry.dtype]).view(entry.shape)

    def read_rows(self, entry: TensorEntry, first: int, last: int) -> Tensor:
        """Rows of a matrix."""
        row_bytes = (entry.end - entry.start) // entry.shape[0]
        data = self._bytes(entry, entry.start + first * row_bytes, entry.start + last * row_bytes)
        return data.view(TORCH_DTYPES[entry.dtype]).view(last - first, *entry.shape[1:])

    def pieces(self, entry: TensorEntry, piece_bytes: int) -> Iterator[tuple[int, memoryview]]:
        """A tensor's bytes, one piece after the other, each with its offset."""
        for start in range(entry.start, entry.end, piece_bytes):
            piece = self._bytes(entry, start, min(start + piece_bytes, entry.end))
            yield start - entry.start, piece.numpy().data

    def decode(self, source: Source) -> Tensor:
        """A logical tensor, whatever its format."""
        parts = {
            part.role: self.read(self.metadata.tensors[part.tensor]) for part in self.metadata.parts(source)
        }
        return self.metadata.scheme.codec(source.tensor).decode(parts, source)

    def forget(self, entry: TensorEntry) -> None:
        """The tensor will not be read again: its pages need not stay cached."""
        os.posix_fadvise(
            self._files[entry.file], entry.start, entry.end - entry.start, os.POSIX_FADV_DONTNEED
        )

    def _bytes(self, entry: TensorEntry, start: int, end: int) -> Tensor:
        data = torch.empty(end - start, dtype=torch.uint8)
        view = data.numpy().data
        while view:
            count = os.preadv(self._files[entry.file], [view], start)
            if not count:
                raise SpecError(
                    f"tensor {entry.name!r} reaches beyond the end of {entry.file}",
                    hint="the file was cut while it was read; start again",
                )
            view = view[count:]
            start += count
        return data


@contextmanager
def open_source(metadata: Metadata) -> Iterator[SourceFiles]:
    """The files, closed in the end."""
    files = SourceFiles(metadata)
    try:
        yield files
    finally:
        files.close()
