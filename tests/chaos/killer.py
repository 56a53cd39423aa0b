"""Ends processes of a server that works, at random moments."""

import os
import random
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from live_server import LiveServer, wait_until
from process_tree import TARGETS, target_pid

JITTER_S = 0.2
PROGRESS_LIMIT_S = 60.0
STOP_EVERY = 9  # odd, so that each target gets its turn


@dataclass(frozen=True, kw_only=True, slots=True)
class Kill:
    """One that was done."""

    target: str
    signal: str
    time_s: float


class Killer:
    """Targets take turns, and most are killed; every so often one is stopped instead, which looks like a
    hang. progress: how much of the work is done, of 1."""

    def __init__(self, server: LiveServer, num_kills: int, seed: int, progress: Callable[[], float]) -> None:
        self._server, self._progress = server, progress
        self._random = random.Random(seed)
        self._moments = sorted(self._random.uniform(0.02, 0.95) for _ in range(num_kills))
        self.kills: list[Kill] = []
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def join(self) -> None:
        self._thread.join()

    def _run(self) -> None:
        for number, moment in enumerate(self._moments):
            wait_until(lambda moment=moment: self._progress() >= moment, "progress", limit_s=PROGRESS_LIMIT_S)
            time.sleep(self._random.uniform(0, JITTER_S))
            how = signal.SIGSTOP if number % STOP_EVERY == STOP_EVERY - 1 else signal.SIGKILL
            self._kill(TARGETS[number % len(TARGETS)], how)

    def _kill(self, target: str, how: signal.Signals) -> None:
        pid = wait_until(lambda: target_pid(self._server, target), f"the {target}")
        with suppress(ProcessLookupError):
            os.kill(pid, how)
        self.kills.append(Kill(target=target, signal=how.name, time_s=time.monotonic()))
