"""The engine's process, from its configuration to its end, with a host and a rank that only say so."""

import asyncio
import logging
import secrets
import socket
from contextlib import asynccontextmanager

import pytest
from fake_peers import TOKEN, answered, hello, load_of

from rackscale.core import Emit, Finish, Request, RequestId, encode_msgpack
from rackscale.engine import replay
from rackscale.runtime.messages import (
    LENGTH,
    Loaded,
    Loading,
    Perform,
    Ready,
    ToHost,
    ToRank,
    frame,
    unframe,
)
from rackscale.runtime.rank_host import TOKEN_VARIABLE
from rackscale.serve import engine_process
from rackscale.serve.engine_messages import (
    Abort,
    Broken,
    Configure,
    FromEngine,
    Progress,
    Said,
    Snapshot,
    Started,
    Submit,
)
from rackscale.specs import Role

LIMIT_S = 20.0
REQUEST = Request(id=RequestId("a"), prompt=(5, 6), max_tokens=2)


class End:
    """One end of a connection to the engine."""

    def __init__(self, reader, writer, kind):
        self._reader, self._writer, self._kind = reader, writer, kind

    def say(self, *messages):
        self._writer.write(b"".join(map(frame, messages)))

    async def hear(self, *kinds):
        """The next message of one of the kinds; others are skipped."""
        while True:
            (length,) = LENGTH.unpack(await self._reader.readexactly(LENGTH.size))
            message = unframe(await self._reader.readexactly(length), self._kind)
            if isinstance(message, kinds):
                return message

    async def close(self):
        self._writer.close()
        await self._writer.wait_closed()


class Engine:
    """`run` as a task, and the server's end of its connection."""

    def __init__(self, server, running):
        self.server, self.running = server, running
        self.address = f"@rackscale-test-{secrets.token_hex(4)}"

    def configure(self, **fields):
        self.server.say(
            Configure(
                **{
                    "load": load_of((Role.MIXED, 1)),
                    "addresses": (self.address,),
                    "num_hosts": 1,
                    "log": None,
                    "start_limit_s": LIMIT_S,
                    **fields,
                }
            )
        )

    async def join(self, kind, **fields):
        while True:
            try:
                ends = await asyncio.open_unix_connection("\0" + self.address[1:])
                break
            except ConnectionRefusedError:  # it has not come to that yet
                await asyncio.sleep(0.01)
        end = End(*ends, kind)
        end.say(hello(**fields))
        return end

    async def start(self):
        """A host and a rank that are there."""
        host = await self.join(ToHost)
        await host.hear(object)
        host.say(Loading(done=1, total=2), Loaded(kernels="native", num_threads=3, num_weight_bytes=1))
        start = await host.hear(object)
        rank = await self.join(ToRank, group=0, rank=0, incarnation=start.incarnation)
        rank.say(Ready())
        return host, rank


@asynccontextmanager
async def engine(monkeypatch):
    monkeypatch.setenv(TOKEN_VARIABLE, TOKEN)
    ours, theirs = socket.socketpair()
    running = asyncio.ensure_future(engine_process.run(theirs))
    server = End(*await asyncio.open_connection(sock=ours), FromEngine)
    try:
        async with asyncio.timeout(LIMIT_S):
            yield Engine(server, running)
            await server.close()
            await running
    finally:
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()


def test_a_request_goes_all_the_way_and_into_the_log(monkeypatch, tmp_path):
    log = tmp_path / "serve.jsonl"

    async def scenario():
        async with engine(monkeypatch) as its:
            its.configure(log=str(log))
            host, rank = await its.start()
            assert await its.server.hear(Progress) == Progress(done=1, total=2)
            assert await its.server.hear(Started) == Started(kernels="native", num_threads=3)
            its.server.say(Submit(request=REQUEST))
            for token in (7, 8):
                await rank.hear(Perform)
                rank.say(answered(token))
            said = [await its.server.hear(Said) for _ in range(2)]
            commands = [command for one in said for command in one.commands]
            tokens = [command.tokens.tolist() for command in commands if isinstance(command, Emit)]
            assert tokens == [[7], [8]]
            assert isinstance(commands[-1], Finish)
            snapshot = await its.server.hear(Snapshot)
            assert snapshot.rack.groups[0].ranks[0].host == "here"
            await rank.close()
            await host.close()
        assert its.running.result() == 0

    asyncio.run(scenario())
    assert replay(log.read_bytes().splitlines(keepends=True)).same


def test_a_group_comes_back(monkeypatch, caplog):
    caplog.set_level(logging.INFO)

    async def scenario():
        async with engine(monkeypatch) as its:
            its.configure()
            its.server.say(Submit(request=REQUEST, again=True, emitted=(7,)))
            host, rank = await its.start()
            await rank.hear(Perform)
            await rank.close()
            start = await host.hear(object)
            while not hasattr(start, "incarnation"):
                start = await host.hear(object)
            rank = await its.join(ToRank, group=0, rank=0, incarnation=2)
            rank.say(Ready())
            await rank.hear(Perform)
            rank.say(answered(8))
            (emit, finish) = (await its.server.hear(Said)).commands
            assert emit.tokens.tolist() == [8]
            assert finish.num_output == 2
            await rank.close()
            await host.close()

    asyncio.run(scenario())
    assert "group 0 is lost: rank 0" in caplog.text
    assert "group 0 is back" in caplog.text


def test_an_answer_that_cannot_be_ends_the_process_with_1(monkeypatch, caplog):
    async def scenario():
        async with engine(monkeypatch) as its:
            its.configure()
            its.server.say(Submit(request=REQUEST))
            host, rank = await its.start()
            await rank.hear(Perform)
            rank.say(answered(7, 8))
            assert await its.running == 1
            await rank.close()
            await host.close()

    asyncio.run(scenario())
    assert "the engine fails" in caplog.text


@pytest.mark.parametrize("address", ["192.0.2.1:1", "nowhere"])
def test_an_address_that_cannot_be_had_is_the_end(monkeypatch, address):
    async def scenario():
        async with engine(monkeypatch) as its:
            its.configure(addresses=(address,))
            broken = await its.server.hear(Broken)
            assert address in broken.what
            assert broken.exit_code == 2

    asyncio.run(scenario())


def test_a_deployment_that_cannot_be_is_the_end_and_requests_do_not_hide_it(monkeypatch):
    async def scenario():
        async with engine(monkeypatch) as its:
            its.configure(load=load_of((Role.DECODE, 1)))
            its.server.say(Submit(request=REQUEST), Abort(request=REQUEST.id))
            assert (await its.server.hear(Broken)).exit_code == 2

    asyncio.run(scenario())


def test_a_log_that_cannot_be_opened_any_more(monkeypatch, caplog):
    async def scenario():
        async with engine(monkeypatch) as its:
            its.configure(log="/nowhere/serve.jsonl.2")
            host, rank = await its.start()
            await its.server.hear(Started)
            await rank.close()
            await host.close()

    asyncio.run(scenario())
    assert "/nowhere/serve.jsonl.2 cannot be written (No such file or directory)" in caplog.text


def test_what_the_server_says_is_understood_or_the_connection_closed(monkeypatch):
    async def scenario():
        async with engine(monkeypatch) as its:
            its.server._writer.write(LENGTH.pack(3) + encode_msgpack({})[:1] * 3)
            assert await its.running == 0

    asyncio.run(scenario())
