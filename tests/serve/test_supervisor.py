"""Who keeps processes alive: what is replaced, what is given up, and that nothing is left."""

import asyncio
import os
import resource
import signal
import sys
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path

import pytest
import uvloop
from fake_peers import load_of
from live_server import lives

from rackscale.core import RackscaleError, RankLostError, Request, RequestId
from rackscale.runtime.messages import Frames, frame, unframe
from rackscale.serve import supervisor as module
from rackscale.serve.desk import Desk
from rackscale.serve.engine_messages import Broken, Configure, HostHangs, Started, Submit, ToEngine
from rackscale.serve.metrics import Metrics
from rackscale.serve.stream import Stream
from rackscale.serve.supervisor import MAX_FAILURES, Supervisor
from rackscale.specs import Role

STARTED = Started(kernels="native", num_threads=1)
LIMIT_S = 20.0
FAKE = """#!{python} -SE
import os, socket, sys
what = sys.argv[2].rpartition(".")[2]
def note(name, data):
    with open({folder!r} + "/" + name, "ab") as file:
        file.write(data)
note(what, b"%d\\n" % os.getpid())
if what == "rank_host":
    if sys.stdin.buffer.read(1):
        note("started", b"%d\\n" % os.getpid())
        if os.path.exists({folder!r} + "/host-fails"):
            sys.exit(3)
        while True:
            socket.socketpair()[0].recv(1)
connection = socket.socket(fileno=int(sys.argv[3]))
connection.sendall(open({folder!r} + "/says", "rb").read())
if os.path.exists({folder!r} + "/engine-fails"):
    sys.exit(3)
connection.settimeout(0.05)
while True:
    try:
        data = connection.recv(65536)
    except TimeoutError:
        if not os.path.exists({folder!r} + "/silent"):
            connection.sendall(open({folder!r} + "/says", "rb").read())
        continue
    if not data:
        break
    note("heard-%d" % os.getpid(), data)
"""


class Workshop:
    """A supervisor whose children do as they are told. Files in `folder` say what they did."""

    def __init__(self, folder, **fields):
        self.folder = folder
        self.metrics = Metrics()
        self.desk = Desk(self.metrics)
        self.configure = Configure(
            **{
                "load": load_of((Role.MIXED, 1)),
                "addresses": ("@nowhere",),
                "num_hosts": 1,
                "log": None,
                "start_limit_s": LIMIT_S,
                **fields,
            }
        )

    def pids(self, what):
        """All that ever were: "engine_process", "rank_host", or "started", hosts that stood by no longer."""
        path = self.folder / what
        return [int(line) for line in path.read_text().splitlines()] if path.exists() else []

    def heard(self, pid):
        path = self.folder / f"heard-{pid}"
        data = path.read_bytes() if path.exists() else b""
        return [unframe(body, ToEngine) for body in Frames().feed(data)]

    @asynccontextmanager
    async def open(self, *, has_host=False):
        supervisor = Supervisor(self.configure, "token", self.desk, self.metrics, has_host=has_host)
        running = asyncio.ensure_future(supervisor.run())
        try:
            yield supervisor, running
        finally:
            running.cancel()
            supervisor.close()
            await asyncio.gather(running, return_exceptions=True)
            await asyncio.sleep(0.05)
            assert not any(map(lives, self.pids("engine_process") + self.pids("rank_host")))


@pytest.fixture
def workshop(tmp_path, monkeypatch):
    fake = tmp_path / "python"
    fake.write_text(FAKE.format(python=os.path.realpath(sys.executable), folder=str(tmp_path)))
    fake.chmod(0o755)
    (tmp_path / "says").write_bytes(frame(STARTED))
    monkeypatch.setattr(sys, "executable", str(fake))
    monkeypatch.setattr(module, "STANDBY_AFTER_S", 0.0)
    monkeypatch.setattr(module, "RETRY_S", 0.01)
    return partial(Workshop, tmp_path)


async def until(condition, what):
    async with asyncio.timeout(LIMIT_S):
        while not (value := condition()):  # noqa: ASYNC110 (processes tell nobody)
            await asyncio.sleep(0.01)
    assert value, what
    return value


def run(coroutine):
    """A loop that waits in C hears of no other limit."""

    async def limited():
        async with asyncio.timeout(4 * LIMIT_S):
            await coroutine

    uvloop.run(limited())


def test_an_engine_that_is_killed_is_replaced_and_told_who_waits(workshop):
    async def scenario():
        shop = workshop(log="serve.jsonl")
        async with shop.open():
            await until(lambda: len(shop.pids("engine_process")) == 1, "an engine")
            request = Request(id=RequestId("a"), prompt=(5, 6), max_tokens=4)
            shop.desk.submit([request], Stream(1, 0.0, lambda: 0.0))
            first = shop.pids("engine_process")[0]
            await until(lambda: len(shop.heard(first)) == 2, "a request")
            assert shop.heard(first) == [shop.configure, Submit(request=request)]
            os.kill(first, signal.SIGKILL)
            second = (await until(lambda: shop.pids("engine_process")[1:], "another engine"))[0]
            await until(lambda: len(shop.heard(second)) == 2, "the request again")
            configure, submit = shop.heard(second)
            assert configure.log == "serve.jsonl.2"
            assert submit == Submit(request=request, again=True)
            await until(lambda: b"engine_restarts_total 1.0" in shop.metrics.text(), "a count of it")

    run(scenario())


@pytest.mark.parametrize("what", ["engine", "host"])
def test_who_ends_by_its_own_doing_again_and_again_is_given_up(workshop, what, caplog):
    async def scenario():
        shop = workshop()
        (shop.folder / f"{what}-fails").touch()
        async with shop.open(has_host=True) as (_, running):
            with pytest.raises(RankLostError, match=f"the {what}'s process failed {MAX_FAILURES} times"):
                await asyncio.wait_for(running, LIMIT_S)
        name = {"engine": "engine_process", "host": "started"}[what]
        assert len(shop.pids(name)) == MAX_FAILURES
        assert f"the {what}'s process is gone (exit code 3)" in caplog.text

    run(scenario())


@pytest.mark.parametrize("what", ["engine_process", "started"])
def test_who_is_killed_is_replaced_however_often(workshop, what):
    async def scenario():
        shop = workshop()
        async with shop.open(has_host=True):
            for number in range(MAX_FAILURES + 2):
                await until(lambda number=number: len(shop.pids(what)) == number + 1, "another")
                os.kill(shop.pids(what)[-1], signal.SIGKILL)

    run(scenario())


def test_an_engine_that_gives_up_ends_the_server_and_starts_nobody(workshop):
    async def scenario():
        shop = workshop()
        broken = Broken(what="it cannot be", hint="do it otherwise", exit_code=2)
        (shop.folder / "says").write_bytes(frame(broken))
        async with shop.open(has_host=True) as (supervisor, running):
            with pytest.raises(RackscaleError, match="it cannot be") as raised:
                await asyncio.wait_for(running, LIMIT_S)
            assert raised.value.exit_code == 2
            supervisor.close()
            before = len(shop.pids("rank_host"))
            await asyncio.sleep(0.2)
            assert len(shop.pids("rank_host")) == before

    run(scenario())


def test_an_engine_that_hangs_is_replaced(workshop, caplog):
    async def scenario():
        shop = workshop(load=load_of((Role.MIXED, 1), hang_limit_s=0.3))
        (shop.folder / "silent").touch()
        async with shop.open():
            await until(lambda: len(shop.pids("engine_process")) == 2, "another")
        assert "the engine did not say anything for 0.3 s" in caplog.text

    run(scenario())


def test_an_engine_that_says_what_nobody_understands_is_replaced(workshop):
    async def scenario():
        shop = workshop()
        (shop.folder / "says").write_bytes(frame(STARTED) + b"\1\0\0\0\xc1")
        async with shop.open():
            await until(lambda: len(shop.pids("engine_process")) > 1, "another")
            (shop.folder / "says").write_bytes(frame(STARTED))

    run(scenario())


def test_a_host_that_hangs_is_killed_but_not_the_one_that_took_its_place(workshop):
    async def scenario():
        shop = workshop()
        async with shop.open(has_host=True) as (supervisor, _):
            first = (await until(lambda: shop.pids("started"), "a host"))[0]
            supervisor.heard(HostHangs(host="elsewhere", pid=first))
            supervisor.heard(HostHangs(host="local", pid=first))
            second = (await until(lambda: shop.pids("started")[1:], "another"))[0]
            supervisor.heard(HostHangs(host="local", pid=first))
            await asyncio.sleep(0.1)
            assert not lives(first)
            assert lives(second)

    run(scenario())


def test_a_host_that_hangs_between_two_engines_is_killed(workshop, caplog):
    async def scenario():
        shop = workshop(load=load_of((Role.MIXED, 1), hang_limit_s=0.4))
        async with shop.open(has_host=True) as (supervisor, _):
            host = (await until(lambda: shop.pids("started"), "a host"))[0]
            supervisor.host_joined(host)  # of an engine that is gone
            await until(lambda: not lives(host), "its end")
        assert "the host did not join the engine within 0.4 s" in caplog.text

    run(scenario())


def test_a_host_stands_by(workshop):
    async def scenario():
        shop = workshop()
        async with shop.open(has_host=True):
            await until(lambda: len(shop.pids("rank_host")) == 2, "one that stands by")
            await until(lambda: shop.pids("started"), "one that has started")
            (first,) = shop.pids("started")
            (standby,) = set(shop.pids("rank_host")) - {first}
            os.kill(first, signal.SIGKILL)
            await until(lambda: len(shop.pids("started")) == 2, "the next")
            assert shop.pids("started") == [first, standby]
            await until(lambda: len(shop.pids("rank_host")) == 3, "one that stands by")
            os.kill(shop.pids("rank_host")[-1], signal.SIGKILL)  # nobody notices
            os.kill(standby, signal.SIGKILL)
            await until(lambda: len(shop.pids("started")) == 3, "one that had no time to stand by")

    run(scenario())


def test_a_process_that_cannot_be_started(workshop, monkeypatch, caplog):
    async def scenario():
        shop = workshop()
        monkeypatch.setattr(sys, "executable", "/nowhere/python")
        async with shop.open() as (_, running):
            with pytest.raises(RankLostError, match=f"failed {MAX_FAILURES} times"):
                await asyncio.wait_for(running, LIMIT_S)
        assert "cannot be started (No such file or directory): trying again" in caplog.text

    run(scenario())


def test_a_process_that_cannot_be_started_for_a_while(workshop, monkeypatch):
    async def scenario():
        shop = workshop()
        works = sys.executable
        async with shop.open() as (supervisor, _):
            await asyncio.wait_for(asyncio.shield(supervisor.started), LIMIT_S)
            monkeypatch.setattr(sys, "executable", "/nowhere/python")
            os.kill(shop.pids("engine_process")[0], signal.SIGKILL)
            await asyncio.sleep(0.01 * MAX_FAILURES * 3)
            monkeypatch.setattr(sys, "executable", works)
            await until(lambda: len(shop.pids("engine_process")) == 2, "another")

    run(scenario())


def test_descriptors_are_held_back():
    spare = module._Spare()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken = []
    try:
        highest = max(int(entry.name) for entry in Path("/proc/self/fd").iterdir())
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, highest + 64), hard))
        with suppress(OSError):
            while True:
                taken.append(os.open(os.devnull, os.O_RDONLY))
        with spare.lent():
            os.close(os.open(os.devnull, os.O_RDONLY))
        with pytest.raises(OSError, match="Too many open files"):
            os.open(os.devnull, os.O_RDONLY)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for descriptor in taken:
            os.close(descriptor)
        spare.close()
