"""What a rank's process and its parent tell each other: MessagePack behind a four-byte length, never pickles.

The parent sends one `RankConfig`, then `RankPlan`s; the rank sends `Loading`, then `Ready` or `Failed`, then
a `RankAnswer` for each plan, in order.
"""

import struct
from typing import BinaryIO

from msgspec import Struct

from rackscale.core import decode_msgpack, encode_msgpack
from rackscale.runtime.answer import RankAnswer

LENGTH = struct.Struct("<I")


class RankConfig(Struct, frozen=True, kw_only=True):
    """What `Rank` is built from. activations: fp32, bf16 or auto."""

    path: str
    num_blocks: int
    block_size: int
    max_running: int
    max_model_len: int
    activations: str
    kernels: str
    tokenizer: bool


class Loading(Struct, frozen=True, kw_only=True, tag=True):
    """The rank is alive and has loaded `done` of `total` layers."""

    done: int
    total: int


class Ready(Struct, frozen=True, kw_only=True, tag=True):
    """The rank has answered a step of its own and takes plans. kernels: those that run."""

    kernels: str
    num_threads: int


class Failed(Struct, frozen=True, kw_only=True, tag=True):
    """The rank could not start, and ends. exit_code: what the command line should end with."""

    what: str
    hint: str
    exit_code: int


class Answered(Struct, frozen=True, kw_only=True, tag=True):
    """A plan was performed."""

    answer: RankAnswer


FromRank = Loading | Ready | Failed | Answered


def frame(message: object) -> bytes:
    """A message with its length in front."""
    body = encode_msgpack(message)
    return LENGTH.pack(len(body)) + body


def unframe(body: bytes) -> FromRank:
    """A message of a rank, without its length."""
    return decode_msgpack(body, FromRank)  # type: ignore[arg-type]  # a union is no class to mypy


def read_frame(stream: BinaryIO) -> bytes | None:
    """The next body, or None at the stream's end. Blocks."""
    prefix = stream.read(LENGTH.size)
    if len(prefix) < LENGTH.size:
        return None
    (length,) = LENGTH.unpack(prefix)
    body = stream.read(length)
    return body if len(body) == length else None
