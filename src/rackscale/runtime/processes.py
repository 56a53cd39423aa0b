"""Parents and children, and where they meet."""

import ctypes
import os
import signal
import socket
import sys
import time
from contextlib import suppress

from rackscale.core import RackscaleError

PR_SET_PDEATHSIG = 1
CONNECT_POLL_S = 0.02


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when its parent dies (prctl(2)). parent: its pid, as known before the
    fork."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died in between
        sys.exit(1)


def connect(address: str, limit_s: float) -> socket.socket:
    """A connection to `address`: HOST:PORT, or @NAME for a socket of this host that has no file.

    Tries until somebody listens. Raises RackscaleError after the limit.
    """
    deadline = time.monotonic() + limit_s
    while True:
        try:
            return _connect(address, max(deadline - time.monotonic(), CONNECT_POLL_S))
        except OSError as error:
            if time.monotonic() > deadline:
                raise RackscaleError(
                    f"{address} cannot be reached ({error.strerror or error})",
                    hint="start the engine there, or give its address",
                ) from None
        time.sleep(CONNECT_POLL_S)


def _connect(address: str, limit_s: float) -> socket.socket:
    if address.startswith("@"):
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.connect("\0" + address[1:])
        except OSError:
            connection.close()
            raise
        return connection
    host, _, port = address.rpartition(":")
    connection = socket.create_connection((host, int(port)), timeout=limit_s)
    connection.settimeout(None)
    keep_alive(connection)
    return connection


def keep_alive(connection: socket.socket) -> None:
    """Notice within seconds that a TCP peer's host is gone, and send small messages at once."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (("TCP_NODELAY", 1), ("TCP_KEEPIDLE", 5), ("TCP_KEEPINTVL", 2), ("TCP_KEEPCNT", 3)):
        with suppress(AttributeError):
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
