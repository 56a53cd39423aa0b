"""Two hosts of a rack as two network namespaces, joined by a cable that can be cut."""

import ctypes
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CLONE_NEWNET = 0x40000000
ADDRESSES = {"a": "10.99.0.1", "b": "10.99.0.2"}
LIMIT_S = 10.0


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True, timeout=LIMIT_S)


def why_not() -> str | None:
    """Why this machine can't have namespaces, if so."""
    if shutil.which("ip") is None:
        return "iproute2 is not installed"
    name = f"rackscale-{os.getpid()}-may-i"
    try:
        ip("netns", "add", name)
        ip("netns", "exec", name, "ip", "link", "set", "lo", "up")
        ip("-n", name, "link", "add", "one", "type", "veth", "peer", "name", "other")
    except subprocess.CalledProcessError as error:
        return f"network namespaces can't be made here: {error.stderr.strip()}"
    finally:
        subprocess.run(["ip", "netns", "del", name], capture_output=True, timeout=LIMIT_S, check=False)
    return None


class Cable:
    """Between the hosts "a" and "b"."""

    def __init__(self) -> None:
        self.names = {host: f"rackscale-{os.getpid()}-{host}" for host in ADDRESSES}

    def plug(self) -> None:
        """Make the hosts, and the cable."""
        for name in self.names.values():
            ip("netns", "add", name)
            ip("-n", name, "link", "set", "lo", "up")
        ends = [word for name in self.names.values() for word in ("eth0", "netns", name)]
        ip("link", "add", *ends[:3], "type", "veth", "peer", "name", *ends[3:])
        for host, name in self.names.items():
            ip("-n", name, "address", "add", f"{ADDRESSES[host]}/24", "dev", "eth0")
            ip("-n", name, "link", "set", "eth0", "up")

    def unplug(self) -> None:
        """Nothing is left of them."""
        for name in self.names.values():
            subprocess.run(["ip", "netns", "del", name], capture_output=True, timeout=LIMIT_S, check=False)

    def cut(self) -> None:
        ip("-n", self.names["b"], "link", "set", "eth0", "down")

    def mend(self) -> None:
        ip("-n", self.names["b"], "link", "set", "eth0", "up")

    def address(self, host: str) -> str:
        return ADDRESSES[host]

    def words(self, host: str) -> list[str]:
        """What goes before a command that is to run there."""
        return ["ip", "netns", "exec", self.names[host]]

    def on(self, host: str, work: Callable[[], Any]) -> Any:
        """Do it as if there: sockets that it makes are of that host."""
        with ThreadPoolExecutor(1, initializer=_enter, initargs=(self.names[host],)) as thread:
            return thread.submit(work).result(timeout=LIMIT_S)


def _enter(name: str) -> None:
    """This thread goes there, for ever."""
    with Path(f"/run/netns/{name}").open() as namespace:
        assert ctypes.CDLL(None).setns(namespace.fileno(), CLONE_NEWNET) == 0


@contextmanager
def two_hosts() -> Iterator[Cable]:
    cable = Cable()
    try:
        cable.plug()
        yield cable
    finally:
        cable.unplug()
