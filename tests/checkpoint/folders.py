"""How tests make folders, and edit them."""

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

MakeFolder = Callable[..., Path]
Header = dict[str, Any]

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"


def set_config(folder: Path, **changes: object) -> None:
    """Change fields of config.json."""
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_bytes()), **changes}))


def rewrite(folder: Path, edit: Callable[[Header], object], *, misaligned: int = 0) -> None:
    """Edit the header of the weights, and keep their data as it is.

    misaligned: how many bytes behind a multiple of 8 the data shall start.
    """
    path = folder / WEIGHTS
    raw = path.read_bytes()
    length = struct.unpack("<Q", raw[:8])[0]
    header = json.loads(raw[8 : 8 + length])
    edit(header)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8 + misaligned)
    path.unlink()  # who has mapped the old file keeps it
    path.write_bytes(struct.pack("<Q", len(text)) + text + raw[8 + length :])


def set_entry(folder: Path, tensor: str, **changes: object) -> None:
    """Change what the header says of a tensor."""
    rewrite(folder, lambda header: header[tensor].update(changes))


def set_header(folder: Path, text: bytes, *, length: int | None = None) -> None:
    """A file of a header alone, whose length may be a lie."""
    (folder / WEIGHTS).write_bytes(struct.pack("<Q", len(text) if length is None else length) + text)


def set_index(folder: Path, weight_map: object) -> None:
    """An index beside the weights."""
    (folder / INDEX).write_text(json.dumps({"weight_map": weight_map}))
