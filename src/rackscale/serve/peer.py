"""The other end of a socket: frames out, frames in, and the end of it."""

import asyncio
import os
import signal
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol, cast

from msgspec import DecodeError, Struct

from rackscale.runtime.messages import Frames, frame
from rackscale.runtime.processes import keep_alive

CREDENTIALS = struct.Struct("3i")  # pid, uid, gid: see unix(7), SO_PEERCRED


class Listener(Protocol):
    """Who is told what comes."""

    def received(self, peer: "Peer", body: bytes) -> None:
        """A frame came. What raises DecodeError closes the connection."""
        ...

    def closed(self, peer: "Peer") -> None:
        """Nothing will come any more; told once."""
        ...


class Peer(asyncio.Protocol):
    """One connection. `listener` may be changed while it is open."""

    def __init__(self, listener: Listener) -> None:
        self.listener = listener
        self._frames = Frames()
        self._transport: asyncio.Transport | None = None
        self._local_pid = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's own does not say that it is one
        connection: socket.socket | None = transport.get_extra_info("socket")
        if connection is not None and connection.family in {socket.AF_INET, socket.AF_INET6}:
            keep_alive(connection)
        elif connection is not None:
            credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, CREDENTIALS.size)
            self._local_pid = CREDENTIALS.unpack(credentials)[0]

    def data_received(self, data: bytes) -> None:
        try:
            for body in self._frames.feed(data):
                self.listener.received(self, body)
        except DecodeError:
            self.close()

    def connection_lost(self, _error: Exception | None) -> None:
        self._transport = None
        self.listener.closed(self)

    def send(self, message: Struct) -> None:
        """Queue a message; nothing where the other end is gone."""
        if self._transport is not None:
            self._transport.write(frame(message))

    def end(self) -> None:
        """Close when what was sent is out. `closed` is told."""
        if self._transport is not None:
            self._transport.close()

    def close(self) -> None:
        """Close at once. `closed` is told."""
        if self._transport is not None:
            self._transport.abort()

    def kill(self) -> None:
        """End the process that connected, where it is on this host: nobody has to be asked, who could hang.
        Its pid is its own as long as the connection is open."""
        if self._transport is not None and self._local_pid > 0:
            with suppress(ProcessLookupError):
                os.kill(self._local_pid, signal.SIGKILL)


async def listen(address: str, make: Callable[[], Peer]) -> asyncio.Server:
    """Accept connections at HOST:PORT or @NAME; see `runtime.processes.connect`."""
    loop = asyncio.get_running_loop()
    if address.startswith("@"):
        return await loop.create_unix_server(make, "\0" + address[1:])
    host, _, port = address.rpartition(":")
    return await loop.create_server(make, host, int(port))
