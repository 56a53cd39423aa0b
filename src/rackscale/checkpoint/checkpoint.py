"""A checkpoint's weights, by role."""

import mmap
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from rackscale.checkpoint.codecs import Packed, Plain
from rackscale.checkpoint.codecs.schemes import PlainScheme
from rackscale.checkpoint.generation import GenerationDefaults
from rackscale.checkpoint.metadata import Metadata, open_metadata
from rackscale.checkpoint.safetensors_file import TensorEntry
from rackscale.checkpoint.tokenizer import Tokenizer
from rackscale.specs import ModelSpec

TORCH_DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2, "F8_E8M0": torch.float8_e8m0fnu,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8,
    "U64": torch.uint64, "U32": torch.uint32, "U16": torch.uint16, "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip
WORDS = {1: np.uint8, 2: np.int16, 4: np.float32, 8: np.int64}  # by size, as numpy has no bf16


class Checkpoint:
    """A folder that has been checked. Tensors are views of the mapped files wherever they can be."""

    def __init__(self, metadata: Metadata) -> None:
        self.metadata = metadata
        self._maps: dict[Path, mmap.mmap] = {}

    @property
    def path(self) -> Path:
        return self.metadata.path

    @property
    def spec(self) -> ModelSpec:
        return self.metadata.spec

    @property
    def tokenizer(self) -> Tokenizer | None:
        return self.metadata.tokenizer

    @property
    def generation(self) -> GenerationDefaults:
        return self.metadata.generation

    @property
    def is_quantised(self) -> bool:
        """Whether its folder says that weights are in a few bits."""
        return not isinstance(self.metadata.scheme, PlainScheme)

    def has(self, role: str) -> bool:
        """Whether the model has a tensor for the role (see `roles`)."""
        return role in self.metadata.sources

    def parts(self, role: str) -> dict[str, Tensor]:
        """The tensors that hold a role, as they are in the files, by the codec's names for them."""
        source = self.metadata.sources[role]
        return {
            part.role: self._read(self.metadata.tensors[part.tensor]) for part in self.metadata.parts(source)
        }

    def tensor(self, role: str) -> Tensor:
        """The role's tensor, decoded, matrices as [out, in]. Not to be written to.

        Exact: fp32 where the format is packed. Raises SpecError where scales are not finite."""
        source = self.metadata.sources[role]
        return self.metadata.scheme.codec(source.tensor).decode(self.parts(role), source)

    def packed(self, role: str) -> Packed | None:
        """The role's matrix [out, in] as it is packed, or None where it is not. Not to be written to.

        Raises SpecError naming the tensor where scales are negative or not finite."""
        source = self.metadata.sources[role]
        codec = self.metadata.scheme.codec(source.tensor)
        return None if isinstance(codec, Plain) else codec.packed(self.parts(role), source)

    def forget_pages(self) -> None:
        """Give back the memory of pages that have been read: they are the file's, and are read again when
        they are needed. Whoever has copied weights calls it, so that memory holds them once."""
        for mapped in self._maps.values():
            mapped.madvise(mmap.MADV_DONTNEED)

    def _read(self, entry: TensorEntry) -> Tensor:
        dtype = TORCH_DTYPES[entry.dtype]
        if entry.start == entry.end:
            return torch.empty(entry.shape, dtype=dtype)
        mapped = self._maps.get(entry.file)
        if mapped is None:
            mapped = self._maps[entry.file] = _map_file(entry.file)
        if entry.start % dtype.itemsize:
            copied = bytearray(mapped[entry.start : entry.end])
            return torch.frombuffer(copied, dtype=dtype).view(entry.shape)
        # Through numpy: a checkpoint has 100,000 tensors, and this is twice as fast as torch's own way.
        view = torch.from_numpy(np.ndarray(entry.shape, WORDS[dtype.itemsize], mapped, entry.start))
        return view if view.dtype == dtype else view.view(dtype)


def _map_file(path: Path) -> mmap.mmap:
    """The file, shared with whoever maps it too; a page would be copied if it were written to."""
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)


def open_checkpoint(path: Path | str, *, tokenizer_required: bool = True) -> Checkpoint:
    """Open a Hugging Face folder. Raises SpecError naming the file and the tensor that is wrong."""
    return Checkpoint(open_metadata(Path(path), tokenizer_required=tokenizer_required))
