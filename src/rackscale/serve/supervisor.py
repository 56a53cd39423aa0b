"""Owns the engine's process and this host's: starts them, notices when they die or hang, and starts them
again.

Clients' requests are safe at the desk, weights with the host, and neither knows of the other. So an engine is
replaced in a fraction of a second, and a host in the time that it takes to load the model: another stands by
that has imported what it needs.
"""

import asyncio
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing, contextmanager, suppress

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
    HostJoined,
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
MAX_FAILURES = 5
RETRY_S = 0.5
END_LIMIT_S = 0.5
WATCH_S = 0.1
NUM_SPARE = 12
STANDBY_AFTER_S = 1.0
GO = b"\n"

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
        self._standby: subprocess.Popen[bytes] | None = None
        self._ready_pid = 0  # of the host that was last with an engine
        self._engine: subprocess.Popen[bytes] | None = None
        self._num_engines = 0
        self._spare = _Spare()
        self._is_closed = False
        self._told_s = 0.0
        self.started: asyncio.Future[Started] = asyncio.get_running_loop().create_future()
        self.rack: RackState | None = None

    async def run(self) -> None:
        """Keep them alive, for ever. Raises RackscaleError where that is of no use."""
        lives = [("engine", self._live_engine), ("host", self._live_host)]
        keepers = [
            asyncio.ensure_future(self._keep(what, live)) for what, live in lives[: 1 + self._has_host]
        ]
        try:
            await asyncio.gather(*keepers)
        finally:
            for keeper in keepers:
                keeper.cancel()
            await asyncio.gather(*keepers, return_exceptions=True)

    async def _keep(self, what: str, live: Callable[[], Awaitable[int]]) -> None:
        """One that is killed is started again at once. One that ends by its own doing, soon and again and
        again, would do so for ever."""
        num_failures = 0
        while not self._is_closed:
            born_s = time.monotonic()
            try:
                code = await live()
            except OSError as error:
                _LOG.error("the %s's process cannot be started (%s): trying again", what, error.strerror)
                await asyncio.sleep(RETRY_S)
                num_failures += not self.started.done()  # later on, those who have what it needs will go
            else:
                _LOG.warning("the %s's process is gone (exit code %d): starting another", what, code)
                if time.monotonic() - born_s > SHORT_LIFE_S:
                    num_failures = 0
                elif code != -signal.SIGKILL:
                    num_failures += 1
            if num_failures == MAX_FAILURES:
                raise RankLostError(
                    f"the {what}'s process failed {MAX_FAILURES} times in a row",
                    hint="its last words are above",
                )

    async def _live_host(self) -> int:
        ready, self._standby = self._standby, None
        if ready is not None and ready.poll() is not None:
            _end(ready)
            ready = None
        self._host = self._spawn_host() if ready is None else ready
        assert self._host.stdin is not None, "it waits there"
        with suppress(BrokenPipeError), self._host.stdin as stdin:
            stdin.write(GO)
        preparing = asyncio.ensure_future(self._prepare_standby())
        try:
            return await _end_of(self._host)
        finally:
            preparing.cancel()

    async def _prepare_standby(self) -> None:
        """When there is time for it."""
        await asyncio.shield(self.started)
        await asyncio.sleep(STANDBY_AFTER_S)
        if not self._is_closed:  # its sleep may end just when all do
            with suppress(OSError):  # then it has to be done when it is needed
                self._standby = self._spawn_host()

    def _spawn_host(self) -> "subprocess.Popen[bytes]":
        with self._spare.lent():
            return self._spawn(
                "rackscale.runtime.rank_host",
                self._configure.addresses[0],
                LOCAL_HOST,
                stdin=subprocess.PIPE,
            )

    async def _live_engine(self) -> int:
        with self._spare.lent():
            ours, theirs = socket.socketpair()
            try:
                with theirs:
                    descriptor = theirs.fileno()
                    words = ["rackscale.serve.engine_process", str(descriptor)]
                    self._engine = process = self._spawn(*words, keep=descriptor)
            except OSError:
                ours.close()
                raise
        self._num_engines += 1
        life = _EngineLife(self)
        try:
            peer = Peer(life)
            await asyncio.get_running_loop().create_connection(lambda: peer, sock=ours)
            with closing(peer):
                peer.send(self._numbered(self._configure))
                self._desk.engine_up(peer.send)
                await self._watch(life)
        except BaseException:
            process.kill()
            raise
        finally:
            self._desk.engine_down()
        with suppress(TimeoutError):
            async with asyncio.timeout(END_LIMIT_S):
                await _end_of(process)  # by itself, so that its exit code says why
        process.kill()
        self._metrics.engine_restarted()
        return await _end_of(process)

    def _numbered(self, configure: Configure) -> Configure:
        """Each engine after the first has a log of its own, since a log begins with an engine's birth."""
        if configure.log is None or self._num_engines == 1:
            return configure
        return replace(configure, log=f"{configure.log}.{self._num_engines}")

    async def _watch(self, life: "_EngineLife") -> None:
        """Until the engine is gone, or has not said anything for too long. It may take its time to start."""
        configure = self._configure
        while not life.is_over.is_set():
            limit_s = configure.load.hang_limit_s if life.has_spoken else configure.start_limit_s
            if life.silent_s > limit_s:
                _LOG.error("the engine did not say anything for %g s", limit_s)
                assert self._engine is not None, "it lives"
                self._engine.kill()
                return
            with suppress(TimeoutError):  # wait_for would lose a cancellation that comes with the event
                async with asyncio.timeout(WATCH_S):
                    await life.is_over.wait()
                continue
            life.silent_s += WATCH_S  # counted so, a halt of this process is not taken for the engine's
            self._look_for_host(life)
        if life.broken is not None:
            raise life.broken

    def _look_for_host(self, life: "_EngineLife") -> None:
        """An engine watches the hosts that joined it. One that hangs before it does is for us to notice: it
        may take its time to get ready, but once it has been with an engine it joins the next at once."""
        host, configure = self._host, self._configure
        if host is None or host.pid == life.host_pid:
            life.hostless_s = 0.0
            return
        life.hostless_s += WATCH_S
        is_ready = host.pid == self._ready_pid
        limit_s = configure.load.hang_limit_s if is_ready else configure.start_limit_s
        if life.hostless_s > limit_s:
            _LOG.error("the host did not join the engine within %g s", limit_s)
            host.kill()
            life.hostless_s = 0.0

    def _spawn(
        self, module: str, *words: str, keep: int | None = None, stdin: int = subprocess.DEVNULL
    ) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(  # noqa: S603 (this interpreter, our modules)
            [sys.executable, "-m", module, *words, str(os.getpid())],
            pass_fds=() if keep is None else (keep,),
            stdin=stdin,
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
            case HostHangs(host=host, pid=pid) if host == LOCAL_HOST and self._host is not None:
                if self._host.pid == pid:  # not one that took its place since
                    self._host.kill()
            case _:
                pass

    def host_joined(self, pid: int) -> None:
        """The host is with an engine."""
        self._ready_pid = pid

    def close(self) -> None:
        """End all processes, and start no more. They hold nothing that outlives them."""
        self._is_closed = True
        for process in (self._engine, self._host, self._standby):
            if process is not None:
                _end(process)
        self._spare.close()


class _EngineLife:
    """What one engine's process says, and when it is over."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self.is_over = asyncio.Event()
        self.silent_s = 0.0
        self.host_pid = 0
        self.hostless_s = 0.0
        self.has_spoken = False
        self.broken: RackscaleError | None = None

    def received(self, _peer: Peer, body: bytes) -> None:
        message: FromEngine = unframe(body, FromEngine)
        self.silent_s, self.has_spoken = 0.0, True
        if isinstance(message, HostJoined):
            if message.host == LOCAL_HOST:
                self.host_pid = message.pid
                self._supervisor.host_joined(message.pid)
        elif isinstance(message, Broken):
            self.broken = RackscaleError(message.what, hint=message.hint)
            self.broken.exit_code = message.exit_code
            self.is_over.set()
        else:
            self._supervisor.heard(message)

    def closed(self, _peer: Peer) -> None:
        self.is_over.set()


class _Spare:
    """Descriptors that are held back, so that a process can be started when clients have all others."""

    def __init__(self) -> None:
        self._held: list[int] = []
        self._hold()

    def _hold(self) -> None:
        with suppress(OSError):
            while len(self._held) < NUM_SPARE:
                self._held.append(os.open(os.devnull, os.O_RDONLY))

    @contextmanager
    def lent(self) -> Iterator[None]:
        """Free for the block."""
        self.close()
        try:
            yield
        finally:
            self._hold()

    def close(self) -> None:
        """Free for good."""
        while self._held:
            os.close(self._held.pop())


def _end(process: "subprocess.Popen[bytes]") -> None:
    """At once, if it has not ended."""
    process.kill()
    process.wait()
    if process.stdin is not None:
        process.stdin.close()


async def _end_of(process: "subprocess.Popen[bytes]") -> int:
    """Its exit code, when it has ended."""
    while process.poll() is None:
        try:
            descriptor = os.pidfd_open(process.pid)
        except OSError:  # none is left
            await asyncio.sleep(WATCH_S)
            continue
        loop, ended = asyncio.get_running_loop(), asyncio.Event()
        loop.add_reader(descriptor, ended.set)
        try:
            await ended.wait()
        finally:
            loop.remove_reader(descriptor)
            os.close(descriptor)
    return process.returncode
