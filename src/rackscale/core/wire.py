"""The wire form of the vocabulary: JSON in logs, MessagePack between processes.

Columns are lists of integers in JSON, and raw little-endian int32 in MessagePack.
"""

from typing import Any, TypeVar

import msgspec
import numpy as np

T = TypeVar("T")


def _to_list(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} has no wire form")


def _to_bytes(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return np.ascontiguousarray(value, dtype="<i4").tobytes()
    raise TypeError(f"{type(value).__name__} has no wire form")


def _from_wire(_kind: type, value: Any) -> Any:
    """A column. msgspec makes a ValidationError of what this raises."""
    if isinstance(value, bytes):
        return np.frombuffer(value, dtype="<i4")
    if not isinstance(value, list) or not all(type(entry) is int for entry in value):
        raise TypeError("a column is a list of integers")
    try:
        return np.array(value, dtype=np.int32)
    except OverflowError:
        raise ValueError("a column's integers have 32 bits") from None


_JSON = msgspec.json.Encoder(enc_hook=_to_list)
_MSGPACK = msgspec.msgpack.Encoder(enc_hook=_to_bytes)


def encode_json(value: object) -> bytes:
    """One line of JSON, without a newline. Equal values give equal bytes."""
    return _JSON.encode(value)


def decode_json(data: bytes | str, kind: type[T]) -> T:
    """The value of type `kind`. Raises msgspec.ValidationError where the data do not fit it."""
    return msgspec.json.decode(data, type=kind, dec_hook=_from_wire)


def encode_msgpack(value: object) -> bytes:
    """The compact form, for another process of this host."""
    return _MSGPACK.encode(value)


def decode_msgpack(data: bytes, kind: type[T]) -> T:
    """The value of type `kind`. Raises msgspec.ValidationError where the data do not fit it."""
    return msgspec.msgpack.decode(data, type=kind, dec_hook=_from_wire)
