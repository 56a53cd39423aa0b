"""What an operator sees of a running server: readiness, metrics, listeners, a full queue, TLS, the log."""

import json
import socket
import ssl
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from live_server import NAME, LiveServer, serving, wait_until

LOOPBACK = {"0100007F", "00000000000000000000000001000000", "0000000000000000FFFF00000100007F"}
LISTENING = "0A"


def test_it_lives_before_it_is_ready_and_answers_when_it_is(server):
    loading, *_, ready = server.healths
    assert loading.status == 503
    assert loading.json == {"status": "loading"}
    assert ready.json == {"status": "ready", "model": NAME}
    assert server.first.status == 200


def test_ready_under_its_other_name(server):
    assert server.get("/ready").json == server.get("/health").json


def test_metrics_tell_what_happened(server):
    before = {
        name: server.metric(name)
        for name in ("rackscale_output_tokens_total", "rackscale_ttft_seconds_count")
    }
    ended = 'rackscale_requests_ended_total{reason="length"}'
    ended_before = server.metric(ended)
    server.complete(max_tokens=7, ignore_eos=True)
    assert server.metric("rackscale_output_tokens_total") == before["rackscale_output_tokens_total"] + 7
    assert server.metric("rackscale_ttft_seconds_count") == before["rackscale_ttft_seconds_count"] + 1
    assert server.metric(ended) == ended_before + 1
    assert server.metric("rackscale_requests_running") == 0
    assert server.metric("rackscale_requests_waiting") == 0
    assert server.metric("rackscale_kv_blocks") > 0
    text = server.get("/metrics").body.decode()
    for name in ("rackscale_tpot_seconds_bucket", "rackscale_prefix_hit_tokens_total", "dynamo_frontend_"):
        assert name in text


def test_every_listener_is_on_loopback(server):
    inodes = {inode for pid in server.pids() for inode in sockets_of(pid)}
    listening = {
        words[1].rpartition(":")[0]
        for table in ("tcp", "tcp6")
        for words in map(
            str.split, Path(f"/proc/{server.process.pid}/net/{table}").read_text().splitlines()[1:]
        )
        if words[3] == LISTENING and words[9] in inodes
    }
    assert listening
    assert listening <= LOOPBACK


def sockets_of(pid):
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        target = str(descriptor.readlink())
        if target.startswith("socket:["):
            yield target[len("socket:[") : -1]


def test_blocks_of_a_client_that_is_gone_are_free_at_once(server):
    cancelled = 'rackscale_requests_ended_total{reason="cancelled"}'
    with server.stream(max_tokens=1000) as chunks:
        next(chunks)
        wait_until(lambda: server.metric("rackscale_kv_blocks_used") > 0, "used blocks")
    wait_until(lambda: server.metric("rackscale_kv_blocks_used") == 0, "free blocks")
    assert server.metric("rackscale_requests_running") == 0
    assert server.metric(cancelled) >= 1


def test_a_client_that_goes_without_reading_anything(server):
    body = f'{{"model": "{NAME}", "prompt": "It is", "max_tokens": 1000, "ignore_eos": true}}'.encode()
    head = "POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
    length = f"Content-Length: {len(body)}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.sendall(head.encode() + length.encode() + body)
        wait_until(lambda: server.metric("rackscale_requests_running") == 1, "the request to run")
    wait_until(lambda: server.metric("rackscale_kv_blocks_used") == 0, "free blocks")
    assert server.complete().status == 200


@pytest.fixture(scope="module")
def small_server(bundled_model, tmp_path_factory):
    options = ["--mixed", "1", "--max-waiting", "2", "--max-running", "1", "--json"]
    with serving(bundled_model, tmp_path_factory.mktemp("small"), *options) as server:
        yield server


def test_requests_wait_for_their_turn(small_server):
    with ThreadPoolExecutor(3) as pool:
        answers = list(pool.map(lambda seed: small_server.complete(seed=seed), range(3)))
    assert [answer.status for answer in answers] == [200] * 3


def test_a_full_queue_says_when_to_come_back(small_server):
    with ThreadPoolExecutor(2) as pool, small_server.stream(max_tokens=1000) as running:
        next(running)
        waiting = [pool.submit(small_server.complete) for _ in range(2)]
        wait_until(lambda: small_server.metric("rackscale_requests_waiting") == 2, "a full queue")
        answer = small_server.complete()
    assert answer.status == 503
    assert answer.headers["Retry-After"] == "1"
    assert answer.sentence == "the queue is full; try again later"
    assert [future.result().status for future in waiting] == [200, 200]


@pytest.mark.parametrize("stream", [False, True])
def test_choices_that_do_not_fit_the_queue(small_server, stream):
    answer = small_server.complete(n=8, stream=stream)
    assert answer.status == 503
    assert answer.headers["Retry-After"] == "1"
    assert "queue" in answer.sentence
    wait_until(lambda: small_server.metric("rackscale_kv_blocks_used") == 0, "free blocks")
    assert small_server.complete().status == 200


def test_the_log_as_json(small_server):
    records = [json.loads(line) for line in small_server.log.splitlines()]
    assert {record["level"] for record in records} == {"INFO"}
    assert "loading" in records[0]["message"]
    assert "ready in" in records[-1]["message"]


def test_tls(bundled_model, tmp_path):
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    command = (
        "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=a -addext subjectAltName=IP:127.0.0.1"
    )
    subprocess.run([*command.split(), "-keyout", key, "-out", cert], check=True, capture_output=True)
    server = LiveServer(bundled_model, tmp_path, "--tls-cert", str(cert), "--tls-key", str(key))
    server.secure = ssl.create_default_context(cafile=str(cert))
    try:
        assert server.ready().complete().status == 200
        server.secure = None
        with pytest.raises(OSError, match=r"reset|closed|Remote end"):
            server.get("/health")
    finally:
        server.end()
