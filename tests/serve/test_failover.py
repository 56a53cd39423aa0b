"""Processes die, hang and run out of things, and clients do not notice."""

import os
import resource
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import pytest
from live_server import NAME, children, lives, serving, wait_until
from openai import OpenAI

HANG_LIMIT_S = 2.0
MOST_S = 3.0  # the longest gap that a client may see in a stream when a process is killed
MODULES = {"engine": "rackscale.serve.engine_process", "host": "rackscale.runtime.rank_host"}
TARGETS = ["prefill", "decode", "engine", "host"]
SHARED_MEMORY = Path("/dev/shm")
FIELDS = (
    {"temperature": 0, "max_tokens": 400},
    {"temperature": 1, "seed": 3, "max_tokens": 400},
    {"temperature": 1, "seed": 4, "n": 2, "max_tokens": 300},
    {"temperature": 0, "logprobs": 2, "max_tokens": 300},
)


def pid_of(server, target):
    """The process as it is now, or None. Of two hosts the one that has ranks: the other stands by."""
    if target in MODULES:
        found = [pid for pid in children(server.process.pid) if MODULES[target] in words_of(pid)]
        return max(found, key=lambda pid: len(children(pid)), default=None)
    groups = server.get("/rack/state").json["groups"]
    pid = next(group["ranks"][-1]["pid"] for group in groups if group["role"] == target)
    return pid if pid and lives(pid) else None


def words_of(pid):
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    except OSError:
        return []


def hit(server, target, how):
    pid = wait_until(lambda: pid_of(server, target), f"the {target}")
    os.kill(pid, how)
    return pid


class Streams:
    """All kinds of streams at once, by the real client. times: of the chunks of each."""

    def __init__(self, server):
        self._client = OpenAI(base_url=server.url, api_key="none", max_retries=0)
        self.times = [[] for _ in FIELDS]
        self.flows = threading.Event()
        self._pool = ThreadPoolExecutor(len(FIELDS))
        self._answers = [self._pool.submit(self._read, number) for number in range(len(FIELDS))]

    def _read(self, number):
        texts, logprobs, ends = {}, {}, {}
        stream = self._client.completions.create(
            model=NAME,
            prompt="It is a truth",
            stream=True,
            extra_body={"ignore_eos": True},
            **FIELDS[number],
        )
        for chunk in stream:
            self.times[number].append(time.monotonic())
            if all(self.times):
                self.flows.set()
            for choice in chunk.choices:
                texts[choice.index] = texts.get(choice.index, "") + choice.text
                if choice.logprobs:
                    logprobs.setdefault(choice.index, []).extend(choice.logprobs.token_logprobs)
                ends[choice.index] = choice.finish_reason or ends.get(choice.index)
        return texts, {index: pytest.approx(some, abs=1e-4) for index, some in logprobs.items()}, ends

    def answers(self):
        with self._pool:
            return [answer.result(timeout=60) for answer in self._answers]

    @property
    def longest_gap_s(self):
        return max(b - a for times in self.times for a, b in pairwise(times))


@pytest.fixture(scope="module")
def rack(bundled_model, tmp_path_factory):
    options = ["--hang-limit-s", str(HANG_LIMIT_S)]
    with serving(bundled_model, tmp_path_factory.mktemp("rack"), *options) as server:
        yield server
        assert "Traceback" not in server.log


@pytest.fixture(scope="module")
def undisturbed(rack):
    return Streams(rack).answers()


def same(answers, expected):
    """Exactly the same texts and ends, and logprobs that are as near as sums in another order are."""
    return all(
        (text, end) == (its_text, its_end) and [near.expected for near in mine.values()] == list(its.values())
        for (text, mine, end), (its_text, its, its_end) in zip(answers, expected, strict=True)
    )


def whole(server):
    """Every rank is there, and takes work."""
    groups = server.get("/rack/state").json["groups"]
    return all(rank["status"] == "up" and lives(rank["pid"]) for group in groups for rank in group["ranks"])


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "stopped"])
def test_streams_go_on_with_the_same_tokens(rack, undisturbed, target, how):
    wait_until(lambda: whole(rack), "all ranks")
    streams = Streams(rack)
    assert streams.flows.wait(20)
    # The only prompt is computed by now: what stops in the prefill pool is found by the next one that is too
    # long for the decode pool.
    pid = hit(rack, target, how)
    probe = rack.complete(prompt=[pid % 2000 + 2, *range(2, 902)], max_tokens=2)
    assert probe.status == 200
    assert same(streams.answers(), undisturbed)
    assert streams.longest_gap_s < MOST_S + (HANG_LIMIT_S + 1.0 if how is signal.SIGSTOP else 0.0)
    wait_until(lambda: not lives(pid), "its end")
    wait_until(lambda: whole(rack), "all ranks")
    assert same(Streams(rack).answers(), undisturbed)
    wait_until(lambda: rack.metric("rackscale_kv_blocks_used") == 0, "free blocks")


def test_a_host_that_stops_between_two_engines(rack, undisturbed):
    host = wait_until(lambda: pid_of(rack, "host"), "the host")
    hit(rack, "engine", signal.SIGKILL)
    os.kill(host, signal.SIGSTOP)
    assert rack.complete().status == 200
    assert not lives(host)
    assert same(Streams(rack).answers(), undisturbed)


def test_requests_that_come_while_the_engine_is_away_wait(rack):
    expected = rack.complete(max_tokens=8, temperature=0).json["choices"]
    hit(rack, "engine", signal.SIGKILL)
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: rack.complete(max_tokens=8, temperature=0), range(8)))
    assert [answer.json["choices"] for answer in answers] == [expected] * 8


def test_a_client_that_goes_while_the_engine_is_away_leaves_nothing(rack):
    with rack.stream(max_tokens=1000) as chunks:
        next(chunks)
        hit(rack, "engine", signal.SIGKILL)
    wait_until(lambda: whole(rack), "all ranks")
    assert rack.complete().status == 200
    wait_until(lambda: rack.metric("rackscale_kv_blocks_used") == 0, "free blocks")
    assert rack.metric("rackscale_requests_running") == 0


def test_sigterm_while_a_group_restarts(bundled_model, tmp_path):
    with serving(bundled_model, tmp_path) as server:
        with server.stream(max_tokens=300, stream_options={"include_usage": True}) as chunks:
            next(chunks)
            hit(server, "decode", signal.SIGKILL)
            server.signal(signal.SIGTERM)
            assert list(chunks)[-1]["usage"]["completion_tokens"] == 300
        assert server.wait() == 0


def test_a_full_disk_costs_the_log_alone(bundled_model, tmp_path):
    with serving(bundled_model, tmp_path, "--log", "/dev/full") as server:
        assert "the log cannot be written (No space left on device): it ends here" in server.log
        assert server.complete(max_tokens=8).status == 200
        hit(server, "engine", signal.SIGKILL)
        assert server.complete(max_tokens=8).status == 200
        assert "Traceback" not in server.log


def with_few_descriptors(server, number):
    resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, (number, number))


def test_clients_that_take_all_descriptors(bundled_model, tmp_path):
    with serving(bundled_model, tmp_path) as server:
        held = len(list(Path(f"/proc/{server.process.pid}/fd").iterdir()))
        with_few_descriptors(server, held + 16)
        connections = [server.connect() for _ in range(40)]
        for connection in connections:
            connection.connect()
        hit(server, "engine", signal.SIGKILL)
        time.sleep(1.0)
        for connection in connections:
            connection.close()
        wait_until(lambda: answers(server), "an answer")
        assert "Traceback" not in server.log


def answers(server):
    try:
        return server.complete().status == 200
    except OSError:
        return False


def test_a_server_that_has_too_few_descriptors_from_the_start_says_so(bundled_model):
    words = [sys.executable, "-m", "rackscale.cli", "serve", str(bundled_model), "--port", "29999"]
    done = subprocess.run(
        ["bash", "-c", 'ulimit -n 24; exec "$@"', "bash", *words],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode not in {0, None}
    assert "Too many open files" in done.stderr or "os error 24" in done.stderr


def test_kill_9_of_the_server_leaves_nobody(bundled_model, tmp_path):
    shared = set(SHARED_MEMORY.iterdir())
    with serving(bundled_model, tmp_path) as server:
        wait_until(lambda: len(children(server.process.pid)) >= 3, "the host that stands by")
        pids = [server.process.pid, *(one for child in children(server.process.pid) for one in tree(child))]
        assert len(pids) >= 7
        server.signal(signal.SIGKILL)
        server.wait()
        wait_until(lambda: not any(map(lives, pids)), "the end of every process", 10)
    assert set(SHARED_MEMORY.iterdir()) <= shared


def tree(pid):
    return [pid, *(one for child in children(pid) for one in tree(child))]
