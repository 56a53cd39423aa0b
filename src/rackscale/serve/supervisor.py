"""Owns the engine's process and this host's: starts them, notices when they die or hang, and starts them
again.

Clients' requests are safe at the desk, weights with the host, and neither knows of the other. So an engine is
replaced in a fraction of a second, and a host in the time that it takes to load the model.
"""

import asyncio
import logging
import os
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import closing

from msgspec.structs import replace

from rackscale.core import RackscaleError, RankLostError
from rackscale.runtime.messages import unframe
from rackscale.runtime.rank_host import TOKEN_VARIABLE
from rackscale.serve.desk import Desk
from rackscale.serve.engine_messages import (
    Broken,
    Configure,
    FromEngine,
    HostHangs,
    Progress,
    Said,
    Snapshot,
    Started,
)
from rackscale.serve.metrics import Metrics
from rackscale.serve.peer import Peer
from rackscale.serve.rack_state import RackState

LOCAL_HOST = "local"
PROGRESS_S = 1.0  # between two lines that say how loading goes
SHORT_LIFE_S = 2.0
MAX_SHORT_LIVES = 5
WATCH_S = 0.1

_LOG = logging.getLogger("rackscale.serve")


class Supervisor:
    """configure: of every engine. has_host: whether ranks are on this host. stderr: the children's, a
    descriptor; None: ours."""

    def __init__(
        self,
        configure: Configure,
        token: str,
        desk: Desk,
        metrics: Metrics,
        *,
        has_host: bool,
        stderr: int | None = None,
    ) -> None:
        self._configure, self._desk, self._metrics, self._stderr = configure, desk, metrics, stderr
        self._environment = {**os.environ, TOKEN_VARIABLE: token}
        self._has_host = has_host
        self._host: subprocess.Popen[bytes] | None = None
        self._engine: subprocess.Popen[bytes] | None = None
        self._num_engines = 0
        self._told_s = 0.0
        self.started: asyncio.Future[Started] = asyncio.get_running_loop().create_future()
        self.rack: RackState | None = None

    async def run(self) -> None:
        """Keep them alive, for ever. Raises RackscaleError where that is of no use."""
        keepers = [self._keep("engine", self._live_engine)]
        if self._has_host:
            keepers.append(self._keep("host", self._live_host))
        await asyncio.gather(*keepers)

    async def _keep(self, what: str, live: Callable[[], Awaitable[None]]) -> None:
        short_lives = 0
        while True:
            born_s = time.monotonic()
            await live()
            short_lives = short_lives + 1 if time.monotonic() - born_s < SHORT_LIFE_S else 0
            if short_lives == MAX_SHORT_LIVES:
                raise RankLostError(
                    f"the {what}'s process died {MAX_SHORT_LIVES} times in a row",
                    hint="its last words are above",
                )

    async def _live_host(self) -> None:
        words = ["rackscale.runtime.rank_host", self._configure.addresses[0], LOCAL_HOST]
        self._host = self._spawn(*words)
        code = await _end_of(self._host)
        _LOG.warning("the host's process %d is gone (exit code %d): starting another", self._host.pid, code)

    async def _live_engine(self) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            self._engine = process = self._spawn(
                "rackscale.serve.engine_process", str(theirs.fileno()), keep=theirs.fileno()
            )
        self._num_engines += 1
        life = _EngineLife(self)
        peer = Peer(life)
        await asyncio.get_running_loop().create_connection(lambda: peer, sock=ours)
        with closing(peer):
            peer.send(self._numbered(self._configure))
            self._desk.engine_up(peer.send)
            try:
                await self._watch(life)
            finally:
                self._desk.engine_down()
                process.kill()
        code = await _end_of(process)
        self._metrics.engine_restarted()
        _LOG.warning("the engine's process %d is gone (exit code %d): starting another", process.pid, code)

    def _numbered(self, configure: Configure) -> Configure:
        """Each engine after the first has a log of its own, since a log begins with an engine's birth."""
        if configure.log is None or self._num_engines == 1:
            return configure
        return replace(configure, log=f"{configure.log}.{self._num_engines}")

    async def _watch(self, life: "_EngineLife") -> None:
        """Until the engine is gone, or has not said anything for too long."""
        limit_s = self._configure.load.hang_limit_s
        while not life.is_over.is_set():
            if time.monotonic() - life.heard_s > limit_s:
                _LOG.error("the engine did not say anything for %g s", limit_s)
                return
            try:
                await asyncio.wait_for(life.is_over.wait(), WATCH_S)
            except TimeoutError:
                continue
        if life.broken is not None:
            raise life.broken

    def _spawn(self, module: str, *words: str, keep: int | None = None) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(  # noqa: S603 (this interpreter, our modules)
            [sys.executable, "-m", module, *words],
            pass_fds=() if keep is None else (keep,),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=self._stderr,
            env=self._environment,
        )

    def heard(self, message: object) -> None:
        """The engine said something that is not about its own life."""
        match message:
            case Said() as said:
                self._desk.hear(said)
            case Snapshot(stats=stats, rack=rack):
                self.rack = rack
                self._desk.num_waiting = sum(group.num_waiting for group in stats.groups)
                restarts = sum(group.ranks[0].num_restarts for group in rack.groups)
                self._metrics.snapshot(stats, restarts)
            case Started() as started if not self.started.done():
                self.started.set_result(started)
            case Progress(done=done, total=total) if time.monotonic() - self._told_s > PROGRESS_S:
                self._told_s = time.monotonic()
                _LOG.info("loaded %d of %d layers", done, total)
            case HostHangs(host=host) if host == LOCAL_HOST and self._host is not None:
                self._host.kill()
            case _:
                pass

    def close(self) -> None:
        """End all processes. They hold nothing that outlives them."""
        for process in (self._engine, self._host):
            if process is not None:
                process.kill()
                process.wait()


class _EngineLife:
    """What one engine's process says, and when it is over."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self.is_over = asyncio.Event()
        self.heard_s = time.monotonic()
        self.broken: RackscaleError | None = None

    def received(self, _peer: Peer, body: bytes) -> None:
        self.heard_s = time.monotonic()
        message: FromEngine = unframe(body, FromEngine)
        if isinstance(message, Broken):
            self.broken = RackscaleError(message.what, hint=message.hint)
            self.broken.exit_code = message.exit_code
            self.is_over.set()
        else:
            self._supervisor.heard(message)

    def closed(self, _peer: Peer) -> None:
        self.is_over.set()


async def _end_of(process: "subprocess.Popen[bytes]") -> int:
    """Its exit code, when it has ended."""
    if process.poll() is not None:
        return process.returncode
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    descriptor = os.pidfd_open(process.pid)
    loop.add_reader(descriptor, ended.set)
    try:
        await ended.wait()
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)
    return process.wait()
