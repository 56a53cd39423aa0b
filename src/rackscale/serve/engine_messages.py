"""What the server's process and its engine's tell each other; frames as in `runtime.messages`.

The server sends `Configure`, then `Submit` and `Abort`. The engine sends `Progress`, then `Started`, then
`Said` after each event that says something; and a `Snapshot` a few times a second, by which the server knows
that it lives.
"""

from msgspec import Struct

from rackscale.core import Emit, Finish, Refuse, Request, RequestId, TokenId
from rackscale.engine import EngineStats
from rackscale.policy import BlockChange
from rackscale.runtime.answer import TokenLogprobs
from rackscale.runtime.messages import Load
from rackscale.serve.rack_state import RackState


class Configure(Struct, frozen=True, kw_only=True, tag=True):
    """What to be an engine of. load: for hosts; which ranks each of them has is the engine's to say.
    addresses: where to listen for hosts and ranks. num_hosts: to wait for. log: the path of the log, or
    None. kv_events: whether to say what the caches hold."""

    load: Load
    addresses: tuple[str, ...]
    num_hosts: int
    log: str | None
    start_limit_s: float
    kv_events: bool = False


class Submit(Struct, frozen=True, kw_only=True, tag=True):
    """A request, and what its client has already; see `core.Arrive`."""

    request: Request
    again: bool = False
    emitted: tuple[TokenId, ...] = ()


class Abort(Struct, frozen=True, kw_only=True, tag=True):
    """The client is gone."""

    request: RequestId


ToEngine = Configure | Submit | Abort


class Progress(Struct, frozen=True, kw_only=True, tag=True):
    """A host has loaded `done` of `total` layers."""

    done: int
    total: int


class Started(Struct, frozen=True, kw_only=True, tag=True):
    """Every group can work, for the first time in this engine's life."""

    kernels: str
    num_threads: int


class Said(Struct, frozen=True, kw_only=True, tag=True):
    """Commands that concern clients. logprobs: of samples, as `Emit` counts them. num_waiting: requests that
    wait now. blocks: how the caches have changed, if that is wanted."""

    commands: tuple[Emit | Finish | Refuse, ...]
    logprobs: tuple[TokenLogprobs, ...]
    num_waiting: int
    blocks: tuple[BlockChange, ...] = ()


class Snapshot(Struct, frozen=True, kw_only=True, tag=True):
    """All is as it looks here."""

    stats: EngineStats
    rack: RackState


class HostJoined(Struct, frozen=True, kw_only=True, tag=True):
    """A host is here. From now on the engine watches it."""

    host: str
    pid: int


class HostHangs(Struct, frozen=True, kw_only=True, tag=True):
    """A host does not answer: who started it should end it."""

    host: str
    pid: int


class Broken(Struct, frozen=True, kw_only=True, tag=True):
    """The engine gives up, and ends. exit_code: what the command line should end with."""

    what: str
    hint: str
    exit_code: int


FromEngine = Progress | Started | Said | Snapshot | HostJoined | HostHangs | Broken
