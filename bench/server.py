"""A real server in a process of its own, for benches."""

import asyncio
import http
import random
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import aiohttp

NAME = "bench"
READY_LIMIT_S = 60.0
POLL_S = 0.005


@dataclass(frozen=True, kw_only=True, slots=True)
class Server:
    """A running one. ready_s: from the command to the first answer that says so."""

    pid: int
    url: str
    ready_s: float


@asynccontextmanager
async def serving(model: Path, session: aiohttp.ClientSession, *options: str) -> AsyncIterator[Server]:
    """A server in a process of its own; it is gone after the block."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "rackscale.cli", "serve", str(model)]
    command += ["--port", str(port), "--served-name", NAME, *options]
    started_s = time.perf_counter()
    process = await asyncio.create_subprocess_exec(
        *command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    try:
        async with asyncio.timeout(READY_LIMIT_S):
            while not await is_ready(url, session):  # noqa: ASYNC110 (health is asked for)
                await asyncio.sleep(POLL_S)
        yield Server(pid=process.pid, url=url, ready_s=time.perf_counter() - started_s)
    finally:
        with suppress(ProcessLookupError):
            process.terminate()
        _, words = await process.communicate()
        if process.returncode:
            print(words.decode(), file=sys.stderr)


def free_port() -> int:
    """None of those that an outgoing connection can have: who asks too early would meet itself."""
    while True:
        port = random.randrange(20_000, 32_768)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


async def is_ready(url: str, session: aiohttp.ClientSession) -> bool:
    try:
        async with session.get(f"{url}/health") as answer:
            return answer.status == http.HTTPStatus.OK
    except aiohttp.ClientConnectionError:
        return False
