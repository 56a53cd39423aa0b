"""One .safetensors file: its header, checked before a byte of data is believed.

Format: an 8-byte little-endian length, a JSON header of that length, then the tensors' bytes. Reads only
the header; `data_offset` and the offsets say where the rest is.
"""

import json
import struct
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

from rackscale.core import SpecError

BYTES_OF_LENGTH = 8
MAX_HEADER_BYTES = 100_000_000  # the format's own limit
MAX_DIMS = 64  # PyTorch's
BITS_OF_DTYPE = {
    "F64": 64, "F32": 32, "F16": 16, "BF16": 16, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8,
    "I64": 64, "I32": 32, "I16": 16, "I8": 8, "U64": 64, "U32": 32, "U16": 16, "U8": 8, "BOOL": 8,
}  # fmt: skip


class TensorEntry(NamedTuple):
    """Where a tensor is. start and end: bytes from the file's beginning."""

    file: Path
    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


def read_header(path: Path) -> dict[str, TensorEntry]:
    """The tensors of a file by name. Raises SpecError naming the file, and the tensor if one is wrong."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            prefix = file.read(BYTES_OF_LENGTH)
            length = struct.unpack("<Q", prefix)[0] if len(prefix) == BYTES_OF_LENGTH else size
            first = BYTES_OF_LENGTH + length
            if first > size or length > MAX_HEADER_BYTES:
                raise SpecError(
                    f"{path} says that its header has {length} bytes, and the file has {size}",
                    hint="it is truncated or no safetensors file; download it again",
                )
            header = json.loads(file.read(length))
    except OSError as error:
        raise SpecError(f"{path} cannot be read ({error.strerror})", hint="check the file") from None
    except (ValueError, RecursionError):
        raise SpecError(f"the header of {path} is no JSON", hint="it is damaged; download it again") from None
    if not isinstance(header, dict):
        raise SpecError(f"the header of {path} is no JSON object", hint="download it again")
    header.pop("__metadata__", None)
    return {name: _entry(path, name, value, first, size) for name, value in header.items()}


def _entry(path: Path, name: str, value: object, first: int, size: int) -> TensorEntry:
    fields = value if isinstance(value, dict) else {}
    dtype: Any = fields.get("dtype")
    shape: Any = fields.get("shape")
    offsets: Any = fields.get("data_offsets")
    if not _is_sane(dtype, shape, offsets):
        raise SpecError(
            f"tensor {name!r} in {path} has an entry that contradicts itself",
            hint="the file is damaged; download it again",
        )
    start, end = first + offsets[0], first + offsets[1]
    if end > size:
        raise SpecError(
            f"tensor {name!r} reaches beyond the end of {path}",
            hint="the file is truncated; download it again",
        )
    return TensorEntry(path, name, dtype, tuple(shape), start, end)


def _is_sane(dtype: Any, shape: Any, offsets: Any) -> bool:
    """Whether the three are of their types, and the bytes are as many as the shape says."""
    if type(dtype) is not str or type(shape) is not list or type(offsets) is not list:
        return False
    bits = BITS_OF_DTYPE.get(dtype)
    if bits is None or len(shape) > MAX_DIMS or len(offsets) != len(("start", "end")):
        return False
    for number in (*shape, *offsets):
        if type(number) is not int or number < 0:
            return False
    return bool(offsets[1] - offsets[0] == prod(shape) * bits // 8)
