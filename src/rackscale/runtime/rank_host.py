"""The process that has a host's weights: it loads the model once and forks the ranks, which share its memory.

`python -m rackscale.runtime.rank_host ADDRESS NAME PARENT`, started by the server, whose pid is PARENT; on
another machine `rackscale host`. A rank that dies is forked again in milliseconds, since nothing has to be
loaded. The host does no arithmetic with more than one thread, so that it may fork at any time. Ranks die with
their host, and when their engine is gone.
"""

import gc
import logging
import os
import selectors
import signal
import socket
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from rackscale.core import GroupId, RackscaleError, RankId
from rackscale.runtime.messages import (
    Failed,
    Frames,
    Hello,
    KillGroup,
    Load,
    Loaded,
    Loading,
    Ping,
    Pong,
    RankExited,
    Refused,
    StartGroup,
    ToHost,
    frame,
    unframe,
)
from rackscale.runtime.processes import connect, die_with_parent

if TYPE_CHECKING:
    from rackscale.runtime.host_model import HostModel

TOKEN_VARIABLE = "RACKSCALE_TOKEN"  # noqa: S105 (where it is, not what)
CONNECT_LIMIT_S = 60.0
RANK_CONNECT_LIMIT_S = 10.0
READ_BYTES = 1 << 16
REFUSED_S = 0.5
AGAIN_S = 0.02

_LOG = logging.getLogger("rackscale.host")


@dataclass(frozen=True, kw_only=True, slots=True)
class HostOptions:
    """address: of the engine. path: of the model here; None: where the engine says. num_ranks: how many this
    host may have; None: as many as the engine wants. wait_s: how long to look for an engine that is not
    there, or does not want this host yet."""

    address: str
    name: str
    token: str
    path: Path | None = None
    num_ranks: int | None = None
    wait_s: float = CONNECT_LIMIT_S


@dataclass(kw_only=True, slots=True)
class Child:
    """A rank's process."""

    group: GroupId
    rank: RankId
    incarnation: int


@dataclass(kw_only=True, slots=True)
class Host:
    """Connected to one engine at a time. What is loaded stays when the engine changes."""

    options: HostOptions
    model: "HostModel | None" = None
    children: dict[int, Child] = field(default_factory=dict)
    refused: Refused | None = None

    def serve(self, connection: socket.socket, deaths: socket.socket) -> None:
        """Do what the engine says until it is gone; then no rank is left. deaths: readable when a child
        died."""
        frames = Frames()
        self.refused = None
        try:
            connection.sendall(frame(self._hello()))
            with selectors.DefaultSelector() as selector:
                selector.register(connection, selectors.EVENT_READ)
                selector.register(deaths, selectors.EVENT_READ)
                while True:
                    for key, _ in selector.select():
                        if key.fileobj is deaths:
                            deaths.recv(READ_BYTES)
                            self._reap(connection)
                            continue
                        data = connection.recv(READ_BYTES)
                        if not data:
                            return
                        for body in frames.feed(data):
                            self._obey(connection, body)
        except OSError as error:  # the engine is gone, or out of reach
            _LOG.warning("the engine at %s is gone (%s)", self.options.address, error)
        finally:
            self._kill(list(self.children))
            while self.children:
                self._reap(None, block=True)

    def _hello(self, start: StartGroup | None = None, rank: RankId | None = None, address: str = "") -> Hello:
        """Of this process: the host, or one of its ranks."""
        return Hello(
            token=self.options.token,
            host=self.options.name,
            pid=os.getpid(),
            num_ranks=self.options.num_ranks,
            group=start.group if start else None,
            rank=rank,
            incarnation=start.incarnation if start else 0,
            address=address,
        )

    def _obey(self, connection: socket.socket, body: bytes) -> None:
        match unframe(body, ToHost):
            case Load() as load:
                connection.sendall(frame(self._load(load, connection)))
            case StartGroup() as start:
                self._start(start, connection)
            case KillGroup(group=group):
                self._kill([pid for pid, child in self.children.items() if child.group == group])
            case Ping():
                connection.sendall(frame(Pong()))
            case Refused() as refused:
                self.refused = refused

    def _load(self, load: Load, connection: socket.socket) -> Loaded | Failed:
        from rackscale.runtime.host_model import HostModel  # noqa: PLC0415 (torch: the engine knows that we live)

        try:
            if self.model is None or not self.model.fits(load):
                self.model = HostModel(
                    load,
                    self.options.path,
                    lambda done, total: connection.sendall(frame(Loading(done=done, total=total))),
                )
                gc.collect()
                gc.freeze()  # so that children's collections do not touch, and thereby copy, our pages
        except RackscaleError as error:
            return Failed(what=error.what, hint=error.hint, exit_code=error.exit_code)
        except MemoryError:
            return Failed(what="the model does not fit into memory", hint="lower --kv-gib", exit_code=2)
        return self.model.loaded()

    def _start(self, start: StartGroup, connection: socket.socket) -> None:
        """Fork ranks. One that cannot be had counts as one that ended."""
        assert self.model is not None, "an engine loads before it starts"
        parent, ranks = os.getpid(), self.model.ranks_of(start.group)
        try:
            self.model.renew(start.group)
            for rank in ranks:
                pid = os.fork()
                if pid == 0:
                    self._be_rank(parent, start, rank)
                self.children[pid] = Child(group=start.group, rank=rank, incarnation=start.incarnation)
        except (OSError, RackscaleError) as error:
            _LOG.error("group %d cannot be started: %s", start.group, error)
            exited = RankExited(group=start.group, rank=ranks[0], incarnation=start.incarnation, status=1)
            connection.sendall(frame(exited))

    def _be_rank(self, parent: int, start: StartGroup, rank: RankId) -> None:
        """In the child; does not return."""
        status = 1
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            for ignored in (signal.SIGINT, signal.SIGTERM):  # the host decides when to end
                signal.signal(ignored, signal.SIG_IGN)
            die_with_parent(parent)
            assert self.model is not None, "checked before the fork"
            with connect(self.options.address, RANK_CONNECT_LIMIT_S) as connection:
                address = self.model.open_network(connection, start.group, rank, start.incarnation)
                connection.sendall(frame(self._hello(start, rank, address)))
                self.model.be_rank(connection, start.group, rank)
            status = 0
        except BaseException:  # noqa: BLE001 (the child must not return)
            _LOG.exception("rank %d of group %d ended", rank, start.group)
        finally:
            logging.shutdown()
            os._exit(status)

    def _kill(self, pids: list[int]) -> None:
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def _reap(self, connection: socket.socket | None, *, block: bool = False) -> None:
        """Take the status of children that died, and tell the engine."""
        while self.children:
            try:
                pid, status = os.waitpid(-1, 0 if block else os.WNOHANG)
            except ChildProcessError:
                self.children.clear()
                return
            if pid == 0:
                return
            child = self.children.pop(pid, None)
            if child is not None and connection is not None:
                exited = RankExited(
                    group=child.group,
                    rank=child.rank,
                    incarnation=child.incarnation,
                    status=os.waitstatus_to_exitcode(status),
                )
                connection.sendall(frame(exited))


def run_host(options: HostOptions, *, once: bool) -> None:
    """Serve an engine until it is gone, then the next one at the same address; `once`: no next one.

    Raises RackscaleError where nobody listens there within `wait_s`, or who does will not have this host.
    """
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "FATAL")  # we tell ourselves what fails on the network
    ours, theirs = socket.socketpair()
    ours.setblocking(False)  # noqa: FBT003 (the socket's way)
    theirs.setblocking(False)  # noqa: FBT003 (the same)
    with ours, theirs:
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
        host = Host(options=options)
        refused_since = None
        while True:
            with connect(options.address, options.wait_s) as connection:
                host.serve(connection, ours)
            refused_since = _check_refusal(host, refused_since)
            if once:
                return
            time.sleep(AGAIN_S)  # an engine that does not want us would have us back at once


def _check_refusal(host: Host, since: float | None) -> float | None:
    """Since when the engine has been refusing this host, having done so since `since`. Raises RackscaleError
    where it will not have it."""
    if host.refused is None:
        return None
    now = time.monotonic()
    since = now if since is None else since
    if not host.refused.again or now - since > host.options.wait_s:
        raise RackscaleError(host.refused.what, hint=host.refused.hint)
    time.sleep(REFUSED_S)
    return since


def main() -> None:
    """The server's own host: it gets ready, and stands by until there is something to read on stdin. It ends
    with the server, which decides when."""
    address, name, parent = sys.argv[1:]
    die_with_parent(int(parent))
    for ignored in (signal.SIGINT, signal.SIGTERM):
        signal.signal(ignored, signal.SIG_IGN)
    logging.basicConfig(stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s")
    import rackscale.runtime.host_model  # noqa: F401, PLC0415 (what takes longest)

    if not sys.stdin.buffer.read(1):
        return
    with suppress(RackscaleError):  # the engine is gone for good
        run_host(HostOptions(address=address, name=name, token=os.environ[TOKEN_VARIABLE]), once=False)


if __name__ == "__main__":
    main()
