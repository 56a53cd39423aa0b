"""How a server starts, and how it ends: nothing is left behind."""

import json
import os
import shutil
import signal
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from live_server import LiveServer, lives, serving, wait_until

from rackscale.cli import main

SHARED_MEMORY = Path("/dev/shm")
LONG = 1000
GONE = 10.0


@pytest.fixture
def own_server(bundled_model: Path, tmp_path: Path) -> Iterator[LiveServer]:
    """A server for a test that ends it. It keeps a log, "serve.jsonl"."""
    with serving(bundled_model, tmp_path, "--log", str(tmp_path / "serve.jsonl")) as server:
        yield server


def replayed(capsys, log):
    code = main(["replay", str(log), "--json"])
    return code, json.loads(capsys.readouterr().out)


def nothing_is_left(pids, shared_before, port):
    wait_until(lambda: not any(lives(pid) for pid in pids), "the end of every process", GONE)
    assert set(SHARED_MEMORY.iterdir()) <= shared_before
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", port))


def test_sigterm_lets_a_running_stream_finish(own_server, tmp_path, capsys):
    shared, pids = set(SHARED_MEMORY.iterdir()), own_server.pids()
    with own_server.stream(max_tokens=LONG, stream_options={"include_usage": True}) as chunks:
        next(chunks)
        own_server.signal(signal.SIGTERM)
        wait_until(lambda: "draining" in own_server.log, "the drain")
        refused = own_server.complete()
        assert refused.status == 503
        assert refused.headers["Retry-After"] == "1"
        assert own_server.get("/health").json == {"status": "draining"}
        assert own_server.get("/live").status == 200
        assert list(chunks)[-1]["usage"]["completion_tokens"] == LONG
    assert own_server.wait() == 0
    nothing_is_left(pids, shared, own_server.port)
    code, report = replayed(capsys, tmp_path / "serve.jsonl")
    assert code == 0
    assert report["same"]
    assert report["events"] > LONG


def test_a_second_ctrl_c_ends_it_at_once(own_server):
    shared, pids = set(SHARED_MEMORY.iterdir()), own_server.pids()
    with own_server.stream(max_tokens=LONG) as chunks:
        next(chunks)
        own_server.signal(signal.SIGINT)
        wait_until(lambda: "draining" in own_server.log, "the drain")
        own_server.signal(signal.SIGINT)
        assert own_server.wait(GONE) == 130
    nothing_is_left(pids, shared, own_server.port)


def test_kill_9_leaves_nothing_but_a_log_that_replays(own_server, tmp_path, capsys):
    own_server.complete(guided_choice=["yes", "no"])  # starts the checker of guides, a process of its own
    shared, pids = set(SHARED_MEMORY.iterdir()), own_server.pids()
    assert len(pids) >= 4  # the server, its engine, its host and the checker
    with own_server.stream(max_tokens=LONG) as chunks:
        next(chunks)
        own_server.signal(signal.SIGKILL)
        assert own_server.wait() == -signal.SIGKILL
    nothing_is_left(pids, shared, own_server.port)
    log = tmp_path / "serve.jsonl"
    with log.open("ab") as tail:
        tail.write(b'{"now":1.0,"event":{"type":"Arr')  # what a kill in the middle of a write leaves
    code, report = replayed(capsys, log)
    assert code == 0
    assert report["events"] > 2


def test_running_requests_get_no_longer_than_the_drain(bundled_model, tmp_path):
    with serving(bundled_model, tmp_path, "--drain-s", "0.1") as server:
        pids, shared = server.pids(), set(SHARED_MEMORY.iterdir())
        with server.stream(max_tokens=LONG, n=8) as chunks:
            next(chunks)
            server.signal(signal.SIGTERM)
            *_, last = chunks
            assert server.wait(GONE) == 0
        assert last["error"]["code"] == 503
        nothing_is_left(pids, shared, server.port)


def test_a_stop_while_it_loads(bundled_model, tmp_path):
    server = LiveServer(bundled_model, tmp_path)
    try:
        wait_until(lambda: server.status("/live") == 200, "the first answer")
        server.signal(signal.SIGTERM)
        assert server.wait(GONE) == 0
        assert len(server.log.splitlines()) == 1
        assert " loading " in server.log
    finally:
        server.end()


def test_a_port_that_is_taken(bundled_model, tmp_path):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        server = LiveServer(bundled_model, tmp_path, port=other.getsockname()[1])
        assert server.wait() == 2
    assert server.log.endswith(
        "cannot be listened on (Address already in use): give another --port or --host\n"
    )
    assert len(server.log.splitlines()) == 1


def without_weights(folder):
    (folder / "model.safetensors").unlink()


def truncated(folder):
    path = folder / "model.safetensors"
    os.truncate(path, path.stat().st_size - 100)


def header_bomb(folder):
    with (folder / "model.safetensors").open("r+b") as file:
        file.write(struct.pack("<Q", 1 << 40))


def without_tokenizer(folder):
    (folder / "tokenizer.json").unlink()


def without_config(folder):
    (folder / "config.json").unlink()


def changed(**fields):
    def change(folder):
        path = folder / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))

    return change


@pytest.mark.parametrize(
    ("harm", "says"),
    [
        (without_weights, "safetensors"),
        (truncated, "model.safetensors"),
        (header_bomb, "model.safetensors"),
        (without_tokenizer, "tokenizer.json"),
        (without_config, "config.json"),
        (changed(hidden_size=128), "model.embed_tokens.weight"),
        (changed(architectures=["GPT2LMHeadModel"]), "GPT2LMHeadModel"),
        (changed(num_hidden_layers=7), "model.layers.5"),
    ],
    ids=["weights", "truncated", "bomb", "tokenizer", "config", "shape", "architecture", "layers"],
)
def test_a_broken_checkpoint_is_named(bundled_model, tmp_path, capsys, harm, says):
    folder = tmp_path / "broken"
    shutil.copytree(bundled_model, folder)
    harm(folder)
    assert main(["serve", str(folder)]) == 2
    error = capsys.readouterr().err
    assert says in error
    assert error.startswith("rackscale: ")
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--tool-call-parser", "nobody"], "--tool-call-parser nobody is not known: give one of"),
        (["--reasoning-parser", "nobody"], "--reasoning-parser nobody is not known: give one of"),
        (["--max-model-len", "100000"], "give at most"),
        (["--log", "/nowhere/log.jsonl"], "cannot be written"),
        (["--tls-cert", "/nowhere/a.pem", "--tls-key", "/nowhere/b.pem"], "--tls-cert"),
        (["--host", "192.0.2.1"], "cannot be listened on"),
    ],
    ids=["tool-call-parser", "reasoning-parser", "max-model-len", "log", "tls", "host"],
)
def test_options_that_cannot_be(bundled_model, capsys, words, says):
    assert main(["serve", str(bundled_model), *words]) == 2
    assert says in capsys.readouterr().err
