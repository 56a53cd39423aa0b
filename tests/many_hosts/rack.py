"""A server on host a, and `rackscale host` on both."""

import http.client
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from live_server import NAME, LiveServer, children, free_port, lives, wait_until
from namespaces import ADDRESSES, Cable

TOKEN = "of-this-test"
START_LIMIT_S = 60.0


class Rack(LiveServer):
    """See `LiveServer`; HTTP goes to loopback of host a. max_tokens: of answers that last long enough for
    something to happen meanwhile."""

    max_tokens = 600

    def __init__(self, model: Path, folder: Path, cable: Cable, *options: str) -> None:
        self.cable, self.model, self.folder = cable, model, folder
        self.port, self.join = free_port(), f"{cable.address('a')}:{free_port()}"
        self.log_path = folder / "server.txt"
        self.healths: list[Any] = []
        self.secure = None
        self.hosts: dict[str, subprocess.Popen[bytes]] = {}
        words = ["serve", str(model), "--port", str(self.port), "--served-name", NAME]
        self.process = self._spawn("a", "server", *words, "--hosts", "2", "--listen", self.join, *options)
        for host in ADDRESSES:
            self.start_host(host)

    def start_host(self, host: str) -> None:
        words = ["host", str(self.model), "--join", self.join, "--name", host]
        self.hosts[host] = self._spawn(host, f"host-{host}", *words)

    def kill_host(self, host: str) -> list[int]:
        """Gives the pids of its ranks, that must follow."""
        ranks = children(self.hosts[host].pid)
        self.hosts[host].kill()
        self.hosts[host].wait(timeout=10)
        return ranks

    def _spawn(self, host: str, log: str, *words: str) -> "subprocess.Popen[bytes]":
        with (self.folder / f"{log}.txt").open("ab") as stderr:
            return subprocess.Popen(
                [*self.cable.words(host), sys.executable, "-m", "rackscale.cli", *words],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                env={**_environment(), "OMP_NUM_THREADS": "1", "RACKSCALE_TOKEN": TOKEN},
            )

    def connect(self) -> http.client.HTTPConnection:
        connection = super().connect()
        connection.timeout = START_LIMIT_S
        self.cable.on("a", connection.connect)
        return connection

    def logs(self) -> str:
        return "\n".join(path.read_text() for path in sorted(self.folder.glob("*.txt")))

    def state(self) -> Any:
        return self.get("/rack/state").json

    def group_is_up(self, group: int) -> bool:
        ranks = self.state()["groups"][group]["ranks"]
        return all(rank["status"] == "up" for rank in ranks)

    def end(self) -> None:
        """All processes; none of them may leave another."""
        pids = [pid for one in (self.process, *self.hosts.values()) for pid in (one.pid, *children(one.pid))]
        for host in self.hosts.values():
            if host.poll() is None:
                host.send_signal(signal.SIGTERM)
                try:
                    host.wait(timeout=10)
                finally:
                    host.kill()
        super().end()
        wait_until(lambda: not any(map(lives, pids)), "the end of all processes", 10)


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("DYN_")}


@contextmanager
def rack_of(model: Path, folder: Path, cable: Cable, *options: str) -> Iterator[Rack]:
    rack = Rack(model, folder, cable, *options)
    try:
        wait_until(lambda: rack.status() == 200, "readiness", START_LIMIT_S)
        wait_until(lambda: rack.group_is_up(0), "the first news of the rack", 10)
        yield rack
    except BaseException:
        sys.stderr.write(rack.logs())
        raise
    finally:
        rack.end()
