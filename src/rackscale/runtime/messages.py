"""What processes tell each other: MessagePack behind a four-byte length, never pickles.

Whoever connects to the engine says who it is first (`Hello`): a host, which loads the model and forks ranks,
or one of these ranks. A host gets `Load` and then `StartGroup` and `KillGroup`; a rank says `Ready` and then
answers each `Perform`, in order, with `Answered`.
"""

import struct
from collections.abc import Iterator
from typing import Any, BinaryIO

from msgspec import Struct

from rackscale.core import GroupId, IntColumn, RankId, RankPlan, decode_msgpack, encode_msgpack
from rackscale.runtime.answer import RankAnswer
from rackscale.specs import DeploymentSpec

LENGTH = struct.Struct("<I")


class Hello(Struct, frozen=True, kw_only=True, tag=True):
    """The first message. token: proof that the engine's owner started it. num_ranks: that a host may have;
    None: any number. rank None: it is a host. address: where other hosts' ranks reach this one; "": none has
    to."""

    token: str
    host: str
    pid: int
    num_ranks: int | None = None
    group: GroupId | None = None
    rank: RankId | None = None
    incarnation: int = 0
    address: str = ""


class Load(Struct, frozen=True, kw_only=True, tag=True):
    """Load the model, and make room for these ranks. path: None: the host's own. activations and
    weights: by the names of the options. router_skew: for tests, see `runtime.rank_host`. hang_limit_s: of
    every wait for another rank.
    hosts: the names of all hosts with their ranks; empty: all ranks are on one."""

    path: str | None
    deployment: DeploymentSpec
    ranks: tuple[tuple[GroupId, RankId], ...]
    activations: str
    weights: str
    kernels: str
    tokenizer: bool
    wire: str
    router_skew: float
    hang_limit_s: float
    hosts: tuple[tuple[str, tuple[tuple[GroupId, RankId], ...]], ...] = ()


class StartGroup(Struct, frozen=True, kw_only=True, tag=True):
    """Fork those ranks of the group that this host has."""

    group: GroupId
    incarnation: int


class KillGroup(Struct, frozen=True, kw_only=True, tag=True):
    """End this host's ranks of the group at once."""

    group: GroupId


class Ping(Struct, frozen=True, kw_only=True, tag=True):
    """Are you there?"""


class Refused(Struct, frozen=True, kw_only=True, tag=True):
    """The engine does not want this host. again: it may later."""

    what: str
    hint: str
    again: bool


ToHost = Load | StartGroup | KillGroup | Ping | Refused


class Loading(Struct, frozen=True, kw_only=True, tag=True):
    """The host is alive and has loaded `done` of `total` layers."""

    done: int
    total: int


class Loaded(Struct, frozen=True, kw_only=True, tag=True):
    """Groups may start. kernels: those that run."""

    kernels: str
    num_threads: int
    num_weight_bytes: int


class Failed(Struct, frozen=True, kw_only=True, tag=True):
    """The host cannot do what it was told, and ends. exit_code: what the command line should end with."""

    what: str
    hint: str
    exit_code: int


class RankExited(Struct, frozen=True, kw_only=True, tag=True):
    """A rank's process is gone. status: as subprocess has it, negative for a signal."""

    group: GroupId
    rank: RankId
    incarnation: int
    status: int


class Pong(Struct, frozen=True, kw_only=True, tag=True):
    """I am."""


class Ready(Struct, frozen=True, kw_only=True, tag=True):
    """The rank takes plans."""


class Answered(Struct, frozen=True, kw_only=True, tag=True):
    """A plan was performed."""

    answer: RankAnswer


FromHost = Loading | Loaded | Failed | RankExited | Pong
FromRank = Ready | Failed | Answered


class Meet(Struct, frozen=True, kw_only=True, tag=True):
    """The first message to a rank whose group is on several hosts: the addresses of all its ranks."""

    addresses: tuple[str, ...]


class Door(Struct, frozen=True, kw_only=True):
    """Where a rank takes the KV that ranks of other hosts push."""

    group: GroupId
    rank: RankId
    address: str


class Perform(Struct, frozen=True, kw_only=True, tag=True):
    """Do this step, which has this number. doors: of the ranks of other hosts that it pushes to."""

    plan: RankPlan
    step: int = 0
    doors: tuple[Door, ...] = ()


class Fence(Struct, frozen=True, kw_only=True, tag=True):
    """Take no KV any more of another group's steps up to this one, in this life of it or an earlier one."""

    group: GroupId
    incarnation: int
    step: int


class Place(Struct, frozen=True, kw_only=True, tag=True):
    """From the next step on, experts are on these ranks; see `core.PlaceExperts`."""

    num_experts: int
    most: int
    ranks: IntColumn
    counts: IntColumn


ToRank = Meet | Perform | Place | Fence


def frame(message: object) -> bytes:
    """A message with its length in front."""
    body = encode_msgpack(message)
    return LENGTH.pack(len(body)) + body


def unframe(body: bytes, kind: Any) -> Any:
    """A message of `kind`, a class or a union of such, without its length. Raises msgspec.DecodeError where
    it is none."""
    return decode_msgpack(body, kind)


def read_frame(stream: BinaryIO) -> bytes | None:
    """The next body, or None at the stream's end. Blocks."""
    prefix = stream.read(LENGTH.size)
    if len(prefix) < LENGTH.size:
        return None
    (length,) = LENGTH.unpack(prefix)
    body = stream.read(length)
    return body if len(body) == length else None


class Frames:
    """Bodies out of bytes as they come."""

    def __init__(self) -> None:
        self._data = bytearray()

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The bodies that are whole with these bytes."""
        self._data += data
        while len(self._data) >= LENGTH.size:
            end = LENGTH.size + LENGTH.unpack_from(self._data)[0]
            if len(self._data) < end:
                return
            body = bytes(self._data[LENGTH.size : end])
            del self._data[:end]
            yield body
