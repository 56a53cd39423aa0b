"""A socket's other end: frames, and what is no frame."""

import asyncio
import os
import signal
import socket
import subprocess
import sys

import pytest
import uvloop

from rackscale.runtime.messages import Frames, Hello, Ping, Pong, frame, unframe
from rackscale.serve.peer import Peer, listen

HELLO = Hello(token="t", host="h", pid=1)
SAYS_HELLO = """
import socket, sys
from rackscale.runtime.messages import Hello, frame
connection = socket.socket(socket.AF_UNIX)
connection.connect("\\0" + sys.argv[1])
connection.sendall(frame(Hello(token="t", host="h", pid=1)))
connection.recv(1)
"""


class Listener:
    """What came."""

    def __init__(self):
        self.bodies, self.num_closed = [], 0
        self.came, self.over = asyncio.Event(), asyncio.Event()

    def received(self, _peer, body):
        self.bodies.append(unframe(body, Hello))
        self.came.set()

    def closed(self, _peer):
        self.num_closed += 1
        self.over.set()


async def connected():
    ours, theirs = socket.socketpair()
    listener = Listener()
    peer = Peer(listener)
    await asyncio.get_running_loop().create_connection(lambda: peer, sock=ours)
    theirs.settimeout(0)
    return peer, listener, theirs


def within(coroutine):
    async def limited():
        async with asyncio.timeout(10):
            await coroutine

    uvloop.run(limited())  # as the processes do


def test_frames_come_whole_however_they_are_cut():
    async def scenario():
        _, listener, theirs = await connected()
        with theirs:
            for byte in frame(HELLO) * 2:
                await asyncio.get_running_loop().sock_sendall(theirs, bytes([byte]))
        await listener.over.wait()
        assert listener.bodies == [HELLO] * 2
        assert listener.num_closed == 1

    within(scenario())


def test_what_is_no_frame_closes_the_connection():
    async def scenario():
        peer, listener, theirs = await connected()
        with theirs:
            theirs.send(frame(HELLO) + frame(Pong()) + frame(HELLO))
            await listener.over.wait()
        assert listener.bodies == [HELLO]
        peer.send(Ping())  # nobody gets it
        peer.close()
        peer.end()
        peer.kill()
        assert listener.num_closed == 1

    within(scenario())


def test_what_was_sent_before_the_end_arrives():
    async def scenario():
        peer, listener, theirs = await connected()
        with theirs:
            peer.send(Ping())
            peer.end()
            await listener.over.wait()
            (body,) = Frames().feed(theirs.recv(100))
            assert unframe(body, Ping) == Ping()

    within(scenario())


def test_a_process_that_connected_from_this_host_can_be_ended():
    async def scenario():
        listener, name = Listener(), f"rackscale-test-{os.getpid()}"
        peers = []

        def make():
            peers.append(Peer(listener))
            return peers[-1]

        async with await listen(f"@{name}", make):
            process = subprocess.Popen([sys.executable, "-c", SAYS_HELLO, name])  # noqa: ASYNC220 (it is quick)
            await listener.came.wait()
            peers[0].kill()
            await listener.over.wait()
        assert process.wait(timeout=10) == -signal.SIGKILL

    within(scenario())


def test_a_process_on_the_network_is_not_ours_to_end():
    async def scenario():
        listener = Listener()
        peers = []

        def make():
            peers.append(Peer(listener))
            return peers[-1]

        async with await listen("127.0.0.1:0", make) as server:
            with socket.create_connection(server.sockets[0].getsockname()) as connection:
                connection.sendall(frame(HELLO))
                await listener.came.wait()
                peers[0].kill()  # would be this one
            await listener.over.wait()

    within(scenario())


@pytest.mark.parametrize("address", ["nowhere", "127.0.0.1:port", "192.0.2.1:1"])
def test_addresses_that_are_none(address):
    with pytest.raises((OSError, ValueError)):
        asyncio.run(listen(address, lambda: Peer(Listener())))
