"""A host, as the engine's process has it: what it says, and whether it still says anything."""

import logging
from collections.abc import Sequence
from typing import Protocol

from rackscale.core import RackscaleError
from rackscale.runtime.messages import (
    Failed,
    FromHost,
    Hello,
    Load,
    Loaded,
    Loading,
    Ping,
    Pong,
    RankExited,
    unframe,
)
from rackscale.serve.fleet_events import FleetEvents
from rackscale.serve.group import Group
from rackscale.serve.peer import Peer

PING_S = 1.0
LOAD_LIMITS = 5  # a layer may take so many times as long to load as a group to start

_LOG = logging.getLogger("rackscale.engine")


class Hosts(Protocol):
    """The fleet, as one of its hosts needs it."""

    load: Load
    events: FleetEvents
    start_limit_s: float
    now: float

    @property
    def groups(self) -> Sequence[Group]: ...

    def host_loaded(self) -> None:
        """Groups whose hosts are all there may start."""
        ...

    def host_lost(self, host: "Host") -> None:
        """Its ranks die with it."""
        ...


class Host:
    """A process that has weights and forks ranks."""

    def __init__(self, fleet: Hosts, peer: Peer, hello: Hello) -> None:
        self._fleet, self.peer, self.hello = fleet, peer, hello
        self.loaded: Loaded | None = None
        self._heard = fleet.now
        self._asked: float | None = None  # the question that is open: load, or say that you are there

    @property
    def name(self) -> str:
        return self.hello.host

    @property
    def is_loaded(self) -> bool:
        return self.loaded is not None

    def load(self, load: Load) -> None:
        """Have it load the model."""
        self._asked = self._fleet.now
        self.peer.send(load)

    def received(self, _peer: Peer, body: bytes) -> None:
        self._hear(unframe(body, FromHost))
        self._heard = self._fleet.now
        self._asked = None if self.is_loaded else self._heard

    def _hear(self, message: FromHost) -> None:
        match message:
            case Loading(done=done, total=total):
                self._fleet.events.loading(done, total)
            case Loaded() as loaded:
                self.loaded = loaded
                self._fleet.host_loaded()
            case Failed() as failed:
                error = RackscaleError(failed.what, hint=failed.hint)
                error.exit_code = failed.exit_code
                self._fleet.events.broken(error)
            case RankExited(group=group, rank=rank, incarnation=incarnation, status=status):
                if 0 <= group < len(self._fleet.groups):
                    self._fleet.groups[group].exited(rank, incarnation, status)
            case Pong():
                pass

    def closed(self, _peer: Peer) -> None:
        self._fleet.host_lost(self)

    def watch(self) -> None:
        """Ask now and then whether it is there. While it loads, its progress says so."""
        now, limit_s = self._fleet.now, self._limit_s
        if self._asked is None:
            if self.is_loaded and now - self._heard >= PING_S:
                self._asked = now
                self.peer.send(Ping())
        elif now - self._asked > limit_s:
            _LOG.error("host %s did not answer within %g s", self.name, limit_s)
            self._fleet.events.host_hangs(self.name, self.hello.pid)
            self.peer.close()

    @property
    def _limit_s(self) -> float:
        fleet = self._fleet
        return fleet.load.hang_limit_s if self.is_loaded else fleet.start_limit_s * LOAD_LIMITS
