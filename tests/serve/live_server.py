"""A real `rackscale serve` in a process of its own, and a small HTTP client that sees all of an answer."""

import http.client
import json
import os
import random
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

NAME = "austen"
LIMIT_S = 30.0
POLL_S = 0.02


def wait_until(condition: Callable[[], Any], what: str, limit_s: float = LIMIT_S) -> Any:
    """The first true value of the condition, asked every POLL_S. Fails the test after the limit."""
    deadline = time.monotonic() + limit_s
    while not (value := condition()):
        assert time.monotonic() < deadline, f"waited {limit_s} s for {what}"
        time.sleep(POLL_S)
    return value


def free_port() -> int:
    """None of those that an outgoing connection can have: a client that asks too early would meet itself."""
    while True:
        port = random.randrange(20_000, 32_768)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


@dataclass(frozen=True)
class Answer:
    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def sentence(self) -> str:
        return self.json["error"]["message"]


def _environment() -> dict[str, str]:
    """This process's own, without what a server that ran in it has set for Dynamo."""
    return {name: value for name, value in os.environ.items() if not name.startswith("DYN_")}


class LiveServer:
    """One server. `log_path` gets its stderr."""

    def __init__(self, model: Path, folder: Path, *options: str, port: int | None = None) -> None:
        self.port = port or free_port()
        self.log_path = folder / f"stderr-{self.port}.txt"
        self.healths: list[Answer] = []
        self.secure: ssl.SSLContext | None = None
        words = [sys.executable, "-m", "rackscale.cli", "serve", str(model)]
        words += ["--port", str(self.port), "--served-name", NAME, *options]
        with self.log_path.open("wb") as log:
            self.process = subprocess.Popen(
                words,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
                env={**_environment(), "OMP_NUM_THREADS": "1"},
            )

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def log(self) -> str:
        return self.log_path.read_text()

    def status(self, path: str = "/health") -> int | None:
        """None: nobody listens."""
        try:
            return self.get(path).status
        except (ConnectionError, http.client.HTTPException):
            assert self.process.poll() is None, self.log
            return None

    def ready(self) -> "LiveServer":
        """Wait until it says so; `healths` are what it said on the way, and `first` is its first answer."""
        wait_until(lambda: self.status("/live") == 200, "the first answer")
        wait_until(lambda: self.healths.append(self.get("/health")) or self.is_ready, "readiness")
        self.first = self.complete()
        return self

    @property
    def is_ready(self) -> bool:
        assert self.process.poll() is None, self.log
        return self.healths[-1].status == 200

    def connect(self) -> http.client.HTTPConnection:
        if self.secure is not None:
            return http.client.HTTPSConnection("127.0.0.1", self.port, timeout=LIMIT_S, context=self.secure)
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=LIMIT_S)

    def get(self, path: str) -> Answer:
        return self.ask("GET", path, None)

    def post(self, path: str, body: object) -> Answer:
        """body: bytes go as they are, all else as JSON."""
        return self.ask("POST", path, body if isinstance(body, bytes) else json.dumps(body).encode())

    def ask(self, method: str, path: str, body: bytes | None) -> Answer:
        connection = self.connect()
        try:
            headers = {"Content-Type": "application/json"}
            connection.request(method, path, body=body, headers=headers)
            response = connection.getresponse()
            return Answer(response.status, response.headers, response.read())
        finally:
            connection.close()

    def complete(self, **fields: object) -> Answer:
        return self.post("/v1/completions", {"model": NAME, "prompt": "It is", "max_tokens": 4, **fields})

    @contextmanager
    def stream(self, **fields: object) -> Iterator[Iterator[dict[str, Any]]]:
        """A completion's chunks, as they come. The connection closes at the end of the block."""
        connection = self.connect()
        body = {"model": NAME, "prompt": "It is", "stream": True, "ignore_eos": True, **fields}
        try:
            headers = {"Content-Type": "application/json"}
            connection.request("POST", "/v1/completions", body=json.dumps(body), headers=headers)
            response = connection.getresponse()
            assert response.status == 200, response.read()
            yield chunks(response)
        finally:
            connection.close()

    def metric(self, name: str) -> float:
        """One sample of /metrics by its full name."""
        for line in self.get("/metrics").body.decode().splitlines():
            if line.startswith(f"{name} "):
                return float(line.rpartition(" ")[2])
        raise AssertionError(f"no metric {name}")

    def pids(self) -> list[int]:
        """The server's process and its children."""
        return [self.process.pid, *children(self.process.pid)]

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def wait(self, limit_s: float = LIMIT_S) -> int:
        return self.process.wait(timeout=limit_s)

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(timeout=LIMIT_S)


@contextmanager
def serving(model: Path, folder: Path, *options: str) -> Iterator[LiveServer]:
    """A server that is ready; it is gone after the block."""
    server = LiveServer(model, folder, *options)
    try:
        yield server.ready()
    finally:
        server.end()


def chunks(lines: Iterable[bytes]) -> Iterator[dict[str, Any]]:
    """The data of server-sent events, until [DONE]."""
    for line in lines:
        data = line.removeprefix(b"data: ").strip()
        if data == b"[DONE]":
            return
        if line.startswith(b"data: "):
            yield json.loads(data)


def children(pid: int) -> list[int]:
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for path in tasks for child in path.read_text().split()]


def lives(pid: int) -> bool:
    """Zombies are dead."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"
