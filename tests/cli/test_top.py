"""`rackscale top` against a server that is small and invented."""

import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import threading
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import msgspec
import pytest
from live_server import free_port, wait_until

from rackscale.cli import main
from rackscale.serve.rack_state import RackEvent, RackState

ROOT = Path(__file__).parents[2]
fake_state = runpy.run_path(str(ROOT / "docs" / "images" / "make_rack_png.py"))["fake_state"]
DUO = {"prefill": 1, "decode": 2}
FAST = ["--interval-s", "0.05"]


@contextmanager
def answering(body, status=200, port=0):
    """A server that has one answer to everything; gives its address and the paths that it was asked for."""
    content = msgspec.json.encode(body) if isinstance(body, RackState) else body
    paths = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            paths.append(self.path)
            self.send_response(status)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", paths
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def run(capsys, *words):
    code = main(["top", *words])
    output = capsys.readouterr()
    return code, output.out, output.err


@contextmanager
def watching(url, stdout):
    """`rackscale top URL` in a process of its own."""
    words = [sys.executable, "-m", "rackscale.cli", "top", url, *FAST]
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "110", "LINES": "40"}
    process = subprocess.Popen(words, stdout=stdout, stderr=subprocess.PIPE, env=environment)
    try:
        yield process
    finally:
        process.kill()
        process.communicate(timeout=30)


def interrupt(process):
    """Ctrl-C, and how it ended."""
    process.send_signal(signal.SIGINT)
    code = process.wait(timeout=30)
    return code, process.stderr.read().decode()


def test_json_is_the_state(capsys):
    state = fake_state(DUO, lost=(1,))
    with answering(state) as (url, paths):
        code, out, err = run(capsys, url, "--json")
    assert (code, err) == (0, "")
    assert paths == ["/rack/state"]
    assert msgspec.convert(json.loads(out), RackState) == state


@pytest.mark.parametrize("width", [80, 110])
def test_once_prints_every_rank(capsys, monkeypatch, width):
    monkeypatch.setenv("COLUMNS", str(width))
    state = fake_state({"prefill": 24, "decode": 48}, lost=(30,), starting=(31,), num_layers=36)
    with answering(state) as (url, _):
        code, out, _ = run(capsys, url, "--once")
    assert code == 0
    lines = out.splitlines()
    assert max(map(len, lines)) <= width
    ranks = [line.split() for line in lines if line[:4].strip().isdigit()]
    assert [int(words[0]) for words in ranks] == list(range(72))
    assert [words[2] for words in ranks] == [r.status for group in state.groups for r in group.ranks]
    assert all(words[3] == f"rack-a-{int(words[0]) // 4 + 1:02d}" for words in ranks)
    assert state.model in lines[0]
    assert "1,208,411 finished" in lines[1]
    assert sum(line.startswith("layer ") for line in lines) == 16
    assert "in flight" in out
    assert "rank 30 on rack-a-08 lost" in out


def test_once_of_a_rack_that_has_nothing_yet(capsys):
    state = fake_state({"mixed": 1}, num_layers=0)
    idle = msgspec.structs.replace(
        state.groups[0].ranks[0], num_blocks=0, num_used_blocks=0, tokens_per_s=0.0
    )
    group = msgspec.structs.replace(state.groups[0], ranks=[idle], step_s=0.0)
    state = msgspec.structs.replace(state, groups=[group], events=[], uptime_s=7.0)
    with answering(state) as (url, _):
        code, out, _ = run(capsys, url, "--once")
    assert code == 0
    assert "up 7 s" in out
    assert not any(word in out for word in ("experts", "transfers", "events"))


def test_a_small_model_has_a_row_for_each_layer_and_a_block_for_each_expert(capsys):
    state = fake_state(DUO, num_layers=3, num_experts=4)
    loads = [[1.0, 1.0, 1.0, 1.0], [4.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]]
    state = msgspec.structs.replace(state, experts=msgspec.structs.replace(state.experts, loads=loads))
    with answering(state) as (url, _):
        _, out, _ = run(capsys, url, "--once")
    rows = [line.split() for line in out.splitlines() if line.startswith("layer ")]
    assert rows == [["layer", "0", "▃▃▃▃"], ["layer", "1", "█▁▁▁"], ["layer", "2", "▁▁▁▁"]]


def test_names_cannot_steer_the_terminal(capsys):
    state = fake_state(DUO, model="\x1b[2Jmodel", host="[bold]\x1b]0;x\x07")
    state = msgspec.structs.replace(state, events=[RackEvent(time_s=0.0, what="[red]a\r\nb\x9b")])
    with answering(state) as (url, _):
        _, out, _ = run(capsys, url, "--once")
    assert not any(letter in out for letter in "\x1b\x07\r\x9b")
    assert "?[2Jmodel" in out
    assert "[red]a??b?" in out


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("http://127.0.0.1:{port}", "is not reachable (Connection refused): see that"),
        ("127.0.0.1:{port}/v1", "http://127.0.0.1:{port} is not reachable"),
        ("ftp://127.0.0.1", "give it as http://HOST:PORT"),
        ("http://", "give it as http://HOST:PORT"),
        ("http://host:99999", "give it as http://HOST:PORT"),
        ("http://[", "give it as http://HOST:PORT"),
        ("http://a b\x1b", "is no address of a server"),
    ],
)
@pytest.mark.parametrize("option", ["--once", "--json", "--interval-s=1"])
def test_nobody_there_is_one_line_and_exit_2(capsys, url, says, option):
    port = str(free_port())
    code, out, err = run(capsys, url.replace("{port}", port), option)
    assert code == 2
    assert out == ""
    assert len(err.splitlines()) == 1
    assert says.replace("{port}", port) in err
    assert "\x1b" not in err


@pytest.mark.parametrize(
    ("status", "body", "code", "says"),
    [
        (404, b"nothing", 2, "is no rackscale server, or an older one (status 404"),
        (200, b"<html>", 2, "of another version"),
        (200, b"\xff", 2, "of another version"),
        (200, b'{"model": 5}', 2, "of another version"),
        (503, b"{}", 1, "is not ready: the model is loading or ending; try again"),
    ],
)
def test_another_server_is_told_apart(capsys, status, body, code, says):
    with answering(body, status) as (url, _):
        ended, out, err = run(capsys, url, "--once")
    assert (ended, out) == (code, "")
    assert says in err


def test_what_is_no_http_is_told(capsys, monkeypatch):
    monkeypatch.setattr("rackscale.cli.top.ANSWER_LIMIT_S", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        code, _, err = run(capsys, f"http://127.0.0.1:{silent.getsockname()[1]}", "--once")
    assert code == 2
    assert "no answer within 0.05 s" in err


def test_watching_outlives_the_server(tmp_path):
    port, frames = free_port(), tmp_path / "frames.txt"

    def seen(what):
        return what in frames.read_text()

    with ExitStack() as stack:
        stdout = stack.enter_context(frames.open("wb"))
        with answering(b"{}", 503, port) as (url, _):
            top = stack.enter_context(watching(url, stdout))
            wait_until(lambda: seen("is not ready; asking again"), "a server that loads")
        with answering(fake_state(DUO, model="first"), port=port):
            wait_until(lambda: seen("first  up"), "the first state")
        wait_until(lambda: seen("is not reachable (Connection refused); asking again"), "the news")
        with answering(fake_state(DUO, model="second"), port=port):
            wait_until(lambda: seen("second  up"), "the server's return")
        code, err = interrupt(top)
    assert code == 130
    assert "Traceback" not in err


def test_a_terminal_shows_what_fits_and_is_given_back():
    reader, writer = os.openpty()
    shown = bytearray()

    def seen(what):
        if select.select([reader], [], [], 0)[0]:
            shown.extend(os.read(reader, 1 << 16))
        return what.encode() in shown

    state = fake_state({"mixed": 72}, lost=(70,))
    with answering(state) as (url, paths), watching(url, writer) as top:
        wait_until(lambda: seen("more; ") and len(paths) > 2, "a frame, and that it looks again")
        top.send_signal(signal.SIGINT)
        # It is read on meanwhile: a terminal that is full would hold the process.
        wait_until(lambda: seen("\x1b[?1049l") and top.poll() is not None, "the end")
        code = top.returncode
    os.close(reader)
    os.close(writer)
    text = shown.decode(errors="replace")
    assert code == 130
    assert "\x1b[?1049h" in text
    assert "more; `--once` prints all" in text
    assert "✕ lost" in text
    assert "rank 70 on rack-a-18 lost" in text
