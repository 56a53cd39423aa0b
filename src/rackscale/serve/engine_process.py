"""The engine's process: `python -m rackscale.serve.engine_process FD PARENT`, started by the server, whose
pid PARENT is.

It has no state that is worth keeping: the server knows what each client asked for and has got, and tells the
next engine. It loads no torch, so that the next one is there at once.
"""

import asyncio
import logging
import os
import signal
import socket
import sys
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import BinaryIO

from rackscale.core import GroupId, RackscaleError, SpecError, StepPlan
from rackscale.engine import build
from rackscale.policy import PrefixJournal
from rackscale.runtime.answer import RankAnswer
from rackscale.runtime.messages import unframe
from rackscale.runtime.processes import die_with_parent
from rackscale.runtime.rank_host import TOKEN_VARIABLE
from rackscale.serve.driver import Driver
from rackscale.serve.engine_messages import (
    Abort,
    Broken,
    Configure,
    HostHangs,
    HostJoined,
    Progress,
    Said,
    Snapshot,
    Started,
    Submit,
    ToEngine,
)
from rackscale.serve.fleet import Fleet
from rackscale.serve.fleet_events import FleetEvents
from rackscale.serve.observer import Observer
from rackscale.serve.peer import Peer, listen

SNAPSHOT_S = 0.25

_LOG = logging.getLogger("rackscale.engine")


class EngineProcess(FleetEvents):
    """An engine, once it is configured, and what surrounds it."""

    def __init__(self) -> None:
        self.server: Peer = Peer(self)
        self.ended = asyncio.Event()
        self.has_failed = False
        self._driver: Driver | None = None
        self._fleet: Fleet | None = None
        self._observer: Observer | None = None
        self._started = False
        self._tasks: list[asyncio.Task[None]] = []
        self._doors: list[asyncio.Server] = []

    def received(self, _peer: Peer, body: bytes) -> None:
        """The server said something."""
        match unframe(body, ToEngine):
            case Configure() as configure:
                try:
                    self._configure(configure)
                except RackscaleError as error:
                    self.broken(error)
            case Submit() | Abort() if self._driver is None:
                pass  # it could not be configured, and has said so
            case Submit(request=request, again=again, emitted=emitted):
                self._known_driver.submit(request, again=again, emitted=emitted)
            case Abort(request=request_id):
                self._known_driver.cancel(request_id)

    def closed(self, _peer: Peer) -> None:
        """The server is gone."""
        self.ended.set()

    def fail(self) -> None:
        """The engine believes in what was not done, so no later step can be right: another has to go on."""
        self.has_failed = True
        self.ended.set()

    def close(self) -> None:
        """End the log, and what goes on in the background."""
        for door in self._doors:
            door.close()
        for task in self._tasks:
            task.cancel()
        if self._driver is not None:
            self._driver.close()

    @property
    def _known_driver(self) -> Driver:
        assert self._driver is not None, "an engine is configured first"
        return self._driver

    def _configure(self, configure: Configure) -> None:
        load = configure.load
        deployment = load.deployment
        token = os.environ[TOKEN_VARIABLE]
        self._observer = Observer(deployment.model, [group.num_seats for group in deployment.groups])
        self._fleet = Fleet(load, token, configure.num_hosts, configure.start_limit_s, self)
        journal = PrefixJournal() if configure.kv_events else None
        engine, log = build(deployment, journal), _open_log(configure.log)
        self._driver = Driver(engine, self._fleet, self._observer, self._say, log, journal)
        for work in (self._listen(configure.addresses, self._fleet), self._fleet.watch(), self._snapshots()):
            self._tasks.append(asyncio.ensure_future(self._guard(work)))

    async def _listen(self, addresses: Sequence[str], fleet: Fleet) -> None:
        try:
            for address in addresses:
                self._doors.append(await _listen(address, fleet))
        except RackscaleError as error:
            self.broken(error)

    async def _guard(self, work: Coroutine[None, None, None]) -> None:
        try:
            await work
        except Exception:
            _LOG.exception("the engine's process fails")
            self.fail()
            raise

    def _say(self, said: Said) -> None:
        """What clients have to hear; and, where nobody is left, that it is so: whoever has the last answer
        finds nothing running in the metrics."""
        self.server.send(said)
        if self._known_driver.engine.is_idle:
            self._send_snapshot()

    async def _snapshots(self) -> None:
        while True:
            self._send_snapshot()
            await asyncio.sleep(SNAPSHOT_S)

    def _send_snapshot(self) -> None:
        assert self._fleet is not None, "configured"
        assert self._observer is not None, "configured"
        stats = self._known_driver.engine.stats()
        self.server.send(Snapshot(stats=stats, rack=self._observer.look(stats, self._fleet)))

    def group_up(self, group: GroupId) -> None:
        assert self._fleet is not None, "configured"
        assert self._observer is not None, "configured"
        if self._fleet.groups[group].incarnation > 1:
            self._observer.note(f"group {group} is back")
            _LOG.info("group %d is back", group)
        self._known_driver.group_up(group)
        if not self._started and all(item.is_up for item in self._fleet.groups):
            self._started = True
            loaded = next(host.loaded for host in self._fleet.hosts.values() if host.loaded is not None)
            self.server.send(Started(kernels=loaded.kernels, num_threads=loaded.num_threads))

    def group_lost(self, group: GroupId, why: str) -> None:
        if self._observer is not None:
            self._observer.note(f"group {group} lost: {why}")
        self._known_driver.group_lost(group)

    def step_done(self, plan: StepPlan, answers: Sequence[RankAnswer]) -> None:
        self._known_driver.step_done(plan, answers)

    def loading(self, done: int, total: int) -> None:
        self.server.send(Progress(done=done, total=total))

    def host_joined(self, host: str, pid: int) -> None:
        self.server.send(HostJoined(host=host, pid=pid))

    def host_hangs(self, host: str, pid: int) -> None:
        self.server.send(HostHangs(host=host, pid=pid))

    def broken(self, error: RackscaleError) -> None:
        self.server.send(Broken(what=error.what, hint=error.hint, exit_code=error.exit_code))


async def _listen(address: str, fleet: Fleet) -> asyncio.Server:
    try:
        return await listen(address, fleet.peer)
    except (OSError, ValueError) as error:
        raise SpecError(
            f"{address} cannot be listened on ({error})", hint="give another --listen, as HOST:PORT"
        ) from None


def _open_log(path: str | None) -> BinaryIO | None:
    if path is None:
        return None
    try:
        return Path(path).open("wb")
    except OSError as error:  # the server has tried before the first engine: this happened since
        _LOG.error("%s cannot be written (%s): there is no log from here on", path, error.strerror)
        return None


async def run(connection: socket.socket) -> int:
    """Be an engine until the server closes the connection. Gives the exit code."""
    process = EngineProcess()
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _loop, context: _end_on(process, context))
    await loop.create_connection(lambda: process.server, sock=connection)
    await process.ended.wait()
    process.close()
    return 1 if process.has_failed else 0


def _end_on(process: EngineProcess, context: dict[str, object]) -> None:
    """What goes wrong in a callback."""
    error = context.get("exception")
    _LOG.error(
        "the engine fails: %s",
        context.get("message"),
        exc_info=error if isinstance(error, BaseException) else None,
    )
    process.fail()


def main() -> None:
    """See the module."""
    import uvloop  # noqa: PLC0415 (nobody else here needs it)

    descriptor, parent = map(int, sys.argv[1:])
    die_with_parent(parent)
    for ignored in (signal.SIGINT, signal.SIGTERM):
        signal.signal(ignored, signal.SIG_IGN)  # the server decides when to end
    logging.basicConfig(stream=sys.stderr, format="%(asctime)s %(message)s")
    logging.getLogger("rackscale").setLevel(logging.INFO)
    os._exit(uvloop.run(run(socket.socket(fileno=descriptor))))


if __name__ == "__main__":
    main()
