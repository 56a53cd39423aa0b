"""Headers: whatever bytes a file has, they are read or refused."""

import json
import struct
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rackscale.checkpoint.safetensors_file import MAX_HEADER_BYTES, read_header
from rackscale.core import SpecError

VALID = {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}
WHOLE = st.integers(min_value=-(2**70), max_value=2**70)
JSON = st.recursive(
    st.none() | st.booleans() | WHOLE | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz") / "fuzz.safetensors"


def packed(header: object, data: bytes = bytes(24)) -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def read_or_refuse(path: Path, content: bytes) -> None:
    """Entries that lie within the file, or a SpecError that names it."""
    path.write_bytes(content)
    try:
        entries = read_header(path)
    except SpecError as error:
        assert str(path) in str(error)  # noqa: PT017 (either outcome is right)
    else:
        assert all(0 <= entry.start <= entry.end <= len(content) for entry in entries.values())


def test_entries_are_where_the_header_says(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    content = packed({"__metadata__": {"format": "pt"}, "a": VALID}, bytes(range(24)))
    path.write_bytes(content)
    (entry,) = read_header(path).values()
    assert (entry.name, entry.dtype, entry.shape, entry.file) == ("a", "F32", (2, 3), path)
    assert content[entry.start : entry.end] == bytes(range(24))


@given(content=st.binary(max_size=200))
@example(b"")
@example(b"\x01")
def test_random_bytes(scratch: Path, content: bytes) -> None:
    read_or_refuse(scratch, content)


@given(text=st.binary(max_size=100), length=st.integers(min_value=0, max_value=2**64 - 1))
def test_random_headers(scratch: Path, text: bytes, length: int) -> None:
    read_or_refuse(scratch, struct.pack("<Q", len(text)) + text)
    read_or_refuse(scratch, struct.pack("<Q", length) + text)


@settings(max_examples=300)
@given(field=st.sampled_from(sorted(VALID)), value=JSON | st.lists(WHOLE, max_size=4))
@example(field="shape", value=[10**12, "x"])
@example(field="shape", value=[10**12, []])
@example(field="shape", value=[10**400, 1.5])
@example(field="shape", value=[2**62] * 50_000)
@example(field="data_offsets", value=[2**63, 2**63 + 24])
@example(field="dtype", value=["F32"])
def test_entries_with_one_field_changed(scratch: Path, field: str, value: Any) -> None:
    read_or_refuse(scratch, packed({"a": {**VALID, field: value}}))


@given(header=JSON)
def test_headers_of_any_json(scratch: Path, header: Any) -> None:
    read_or_refuse(scratch, packed(header))


@given(position=st.integers(min_value=0, max_value=79), bit=st.integers(min_value=0, max_value=7))
def test_one_bit_flipped(scratch: Path, position: int, bit: int) -> None:
    content = bytearray(packed({"a": VALID}))
    content[position % len(content)] ^= 1 << bit
    read_or_refuse(scratch, bytes(content))


@given(kept=st.integers(min_value=0, max_value=80))
def test_a_file_cut_short(scratch: Path, kept: int) -> None:
    content = packed({"a": VALID})
    scratch.write_bytes(content[: min(kept, len(content) - 1)])
    with pytest.raises(SpecError, match=r"fuzz\.safetensors"):
        read_header(scratch)


@pytest.fixture
def peak_bytes() -> Iterator[Any]:
    tracemalloc.start()
    yield lambda: tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()


@pytest.mark.parametrize("length", [100_000, MAX_HEADER_BYTES, MAX_HEADER_BYTES + 1, 2**40, 2**64 - 1])
def test_a_length_that_lies_costs_nothing(tmp_path: Path, peak_bytes: Any, length: int) -> None:
    path = tmp_path / "bomb.safetensors"
    path.write_bytes(struct.pack("<Q", length) + b"{}")
    with pytest.raises(SpecError, match="says that its header has"):
        read_header(path)
    assert peak_bytes() < 1_000_000


def test_a_huge_file_may_not_have_a_huge_header(tmp_path: Path, peak_bytes: Any) -> None:
    path = tmp_path / "sparse.safetensors"
    with path.open("wb") as file:
        file.write(struct.pack("<Q", 2**33))
        file.truncate(2**34)  # sparse: takes no room
    with pytest.raises(SpecError, match=r"sparse\.safetensors"):
        read_header(path)
    assert peak_bytes() < 1_000_000
