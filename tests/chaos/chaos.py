"""Kill a server's processes while it works, and see whether its clients notice.

`PYTHONPATH=tests/serve python tests/chaos/chaos.py --requests 10000 --kills 200`. Every question is asked
once without disturbance; then all are asked again and again while a killer is about. One JSON report on
stdout; the exit code is 1 where an answer was lost or different, or something was left behind.
"""

import argparse
import itertools
import json
import os
import platform
import secrets
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from killer import Kill, Killer
from live_server import LiveServer, serving, wait_until
from process_tree import SHARED_MEMORY, TARGETS, memory_mib, owners_of
from questions import Answer, Clients, ask, questions

MODEL = Path("models/austen-moe")
HANG_LIMIT_S = 2.0
END_LIMIT_S = 10.0
WARM = 0.1  # of all requests: what memory is compared with
FLAT = 1.15
SLACK_MIB = 24.0


@dataclass(kw_only=True, slots=True)
class Book:
    """What was expected, and what came."""

    expected: list[Answer]
    num_requests: int
    pid: int
    num_done: int = 0
    lost: list[str] = field(default_factory=list)
    num_different: int = 0
    num_duplicates: int = 0
    gaps: list[tuple[float, float]] = field(default_factory=list)
    tokens: list[float] = field(default_factory=list)
    warm_mib: dict[str, float] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def progress(self) -> float:
        return self.num_done / self.num_requests

    def enter(self, which: int, answer: Answer) -> None:
        """An answer came, to the question of that number."""
        expected = self.expected[which]
        with self.lock:
            self.num_done += 1
            if not answer.is_whole:
                self.lost.append(answer.error or "it has no end")
            elif not answer.is_same(expected):
                self.num_different += 1
                self.num_duplicates += answer.num_tokens > expected.num_tokens
            self.gaps.append(max(answer.gaps(), key=lambda gap: gap[1] - gap[0], default=(0.0, 0.0)))
            self.tokens += answer.times[1:]
            if not self.warm_mib and self.progress >= WARM:
                self.warm_mib = memory_mib(self.pid)


def longest_s(gaps: Sequence[tuple[float, float]], kills: Sequence[Kill]) -> float:
    """The longest gap that one of the kills is in."""
    return max(
        (end - start for start, end in gaps if any(start <= k.time_s <= end for k in kills)), default=0
    )


def by_target(book: Book, kills: Sequence[Kill]) -> dict[str, dict[str, float]]:
    """For each way to die the longest gap in an answer, and the longest time in which nobody got a token."""
    tokens = sorted(book.tokens)
    silences = list(itertools.pairwise(tokens))
    stopped = [kill.time_s for kill in kills if kill.signal == "SIGSTOP"]
    found = {}
    for how in ("SIGKILL", "SIGSTOP"):
        for target in TARGETS:
            its = [kill for kill in kills if (kill.target, kill.signal) == (target, how)]
            # A gap of two deaths says nothing of either of them: a hang is the longer one.
            clear = [
                gap
                for gap in book.gaps
                if how == "SIGSTOP" or not any(gap[0] - HANG_LIMIT_S <= at <= gap[1] for at in stopped)
            ]
            found[f"{how} {target}"] = {
                "kills": len(its),
                "longest_gap_s": round(longest_s(clear, its), 3),
                "longest_silence_s": round(longest_s(silences, its), 3),
            }
    return found


def run(num_requests: int, num_kills: int, num_clients: int, seed: int) -> dict[str, object]:
    """See the module."""
    token = os.environ["RACKSCALE_TOKEN"] = secrets.token_hex()
    shared = set(SHARED_MEMORY.iterdir())
    options = ("--hang-limit-s", str(HANG_LIMIT_S))
    with tempfile.TemporaryDirectory() as folder, serving(MODEL, Path(folder), *options) as server:
        expected = [ask(server, question) for question in questions()]
        assert all(answer.is_whole for answer in expected), expected
        book = Book(expected=expected, num_requests=num_requests, pid=server.process.pid)
        started_s = time.monotonic()
        killer = Killer(server, num_kills, seed, lambda: book.progress)
        killer.start()
        Clients(server, num_clients, book.enter).ask_all(num_requests)
        killer.join()
        wall_s = time.monotonic() - started_s
        end_mib, restarts = settled(server, expected)
        server.signal(signal.SIGTERM)
        exit_code = server.wait()
        left = wait_for_nobody(token)
        return {
            "machine": machine(),
            "requests": num_requests,
            "clients": num_clients,
            "kills": len(killer.kills),
            "seed": seed,
            "wall_s": round(wall_s, 1),
            "lost": len(book.lost),
            "lost_why": book.lost[:3],
            "different": book.num_different,
            "duplicates": book.num_duplicates,
            "restarts": restarts,
            "hang_limit_s": HANG_LIMIT_S,
            "deaths": by_target(book, killer.kills),
            "memory_warm_mib": rounded(book.warm_mib),
            "memory_end_mib": rounded(end_mib),
            "exit_code": exit_code,
            "processes_left": len(left),
            "shared_memory_left": sorted(path.name for path in set(SHARED_MEMORY.iterdir()) - shared),
            "tracebacks": server.log.count("Traceback"),
        }


def settled(server: LiveServer, expected: Sequence[Answer]) -> tuple[dict[str, float], dict[str, float]]:
    """What a server holds, and how often its parts were started again, when all of them work again."""
    again = [ask(server, question) for question in questions()]
    assert all(answer.is_same(other) for answer, other in zip(again, expected, strict=True))
    names = ("engine_restarts_total", "group_restarts_total")
    restarts = {name: server.metric(f"rackscale_{name}") for name in names}
    wait_until(lambda: server.metric("rackscale_kv_blocks_used") == 0, "free blocks")
    return memory_mib(server.process.pid), restarts


def wait_for_nobody(token: str) -> list[int]:
    """Those who still live after a while."""
    deadline = time.monotonic() + END_LIMIT_S
    while (left := owners_of(token)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return left


def rounded(memory: dict[str, float]) -> dict[str, float]:
    return {name: round(mib, 1) for name, mib in memory.items()}


def machine() -> str:
    cpu = [
        line.partition(": ")[2]
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if "model name" in line
    ]
    return f"{cpu[0] if cpu else platform.machine()}, {len(os.sched_getaffinity(0))} cores"


def is_well(report: dict) -> bool:
    """Whether nobody noticed, and nothing is left."""
    warm, end = report["memory_warm_mib"], report["memory_end_mib"]
    return (
        not any(
            report[name]
            for name in ("lost", "different", "processes_left", "shared_memory_left", "exit_code")
        )
        and report["kills"] > 0
        and all(end[name] <= warm[name] * FLAT + SLACK_MIB for name in warm)
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0)
    words = parser.parse_args()
    report = run(words.requests, words.kills, words.clients, words.seed)
    sys.stdout.write(json.dumps(report, indent=2) + "\n")
    return 0 if is_well(report) else 1


if __name__ == "__main__":
    sys.exit(main())
