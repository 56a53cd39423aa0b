"""Connections to hosts that vanish end, instead of staying silent for ever.

A process that dies closes its connections; a host that loses its power or its network does not. Dynamo sets
no limit to that, so the kernel is told to ask for each of this process's connections whether its other end
still answers.
"""

import asyncio
import os
import socket
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path

from rackscale.runtime.processes import keep_alive

LOOK_S = 0.5
UNHEARD_MS = 11_000  # how long sent data may stay unanswered
DESCRIPTORS = Path("/proc/self/fd")
FAMILIES = {socket.AF_INET, socket.AF_INET6}


async def notice_lost_hosts() -> None:
    """Look after all connections, also those that others here open, for ever."""
    known: set[str] = set()
    while True:
        known = _look(known)
        await asyncio.sleep(LOOK_S)


def _look(known: set[str]) -> set[str]:
    """All sockets that there are; those that are not known get their limits."""
    found: set[str] = set()
    for descriptor in DESCRIPTORS.iterdir():
        with suppress(OSError):  # it may close at any time
            name = str(descriptor.readlink())
            if name.startswith("socket:") and (name in known or _limit(int(descriptor.name))):
                found.add(name)
    return found


def _limit(descriptor: int) -> bool:
    """Whether nothing is left to do for this socket. Raises OSError where it is not connected."""
    with socket.socket(fileno=os.dup(descriptor)) as connection:
        is_tcp = connection.family in FAMILIES and connection.type == socket.SOCK_STREAM
        if is_tcp and not ip_address(connection.getpeername()[0]).is_loopback:
            keep_alive(connection)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNHEARD_MS)
    return True
