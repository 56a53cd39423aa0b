"""`rackscale host` on loopback, where no rights are needed: two hosts of one machine."""

import os
import signal
import subprocess
import sys

import pytest
from live_server import free_port, wait_until
from questions_of_hosts import answers_of, ask
from rack import TOKEN, rack_of

from rackscale.cli import main

pytestmark = pytest.mark.timeout(110)


class Loopback:
    """In the place of a cable: both hosts are here."""

    def words(self, _host):
        return []

    def on(self, _host, work):
        return work()

    def address(self, _host):
        return "127.0.0.1"


def joining(model, join, *words, token=TOKEN):
    """A host's process, to be used as a context."""
    return subprocess.Popen(
        [sys.executable, "-m", "rackscale.cli", "host", str(model), "--join", join, *words],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "RACKSCALE_TOKEN": token},
    )


def test_two_hosts_of_one_machine(bundled_model, tmp_path, pool, questions):
    with rack_of(bundled_model, tmp_path, Loopback(), "--prefill", "1", "--decode", "1") as rack:
        prompts = questions.prompts(3)
        questions.check(prompts, answers_of(ask(rack, pool, prompts)))
        assert rack.state()["transfers"]["num_bytes"] > 0

        with joining(bundled_model, rack.join, "--name", "c", token="another") as strange:
            assert strange.wait(timeout=40) == 1
            assert "the engine does not know the token" in strange.stderr.read()
        with joining(bundled_model, rack.join, "--name", "c", "--wait-s", "1") as third:
            assert third.wait(timeout=40) == 1
            assert "the engine has a host called c, or has all that it wants" in third.stderr.read()

        host = rack.hosts["b"]
        host.send_signal(signal.SIGTERM)
        assert host.wait(timeout=10) == 0
        rack.start_host("b")
        wait_until(lambda: rack.group_is_up(1), "the host to be back", 40)


def test_hosts_that_look_for_their_server_end_when_told(bundled_model):
    nobody = f"127.0.0.1:{free_port()}"
    with joining(bundled_model, nobody) as one, joining(bundled_model, nobody) as other:
        with pytest.raises(subprocess.TimeoutExpired):
            one.wait(timeout=4)
        one.send_signal(signal.SIGTERM)
        other.send_signal(signal.SIGINT)
        assert [one.wait(timeout=10), other.wait(timeout=10)] == [0, 130]
        assert "Traceback" not in one.stderr.read() + other.stderr.read()


def complaint(capsys, *words):
    code = main(["host", *map(str, words)])
    return code, capsys.readouterr().err


def test_no_server_is_there(bundled_model):
    address = f"127.0.0.1:{free_port()}"
    with joining(bundled_model, address, "--wait-s", "0.1") as host:
        assert host.wait(timeout=40) == 1
        assert f"{address} cannot be reached" in host.stderr.read()


@pytest.mark.parametrize("join", ["nowhere", ":7000", "host:", "host:99999", "host:x"])
def test_an_address_that_is_none(capsys, bundled_model, monkeypatch, join):
    monkeypatch.setenv("RACKSCALE_TOKEN", TOKEN)
    code, said = complaint(capsys, bundled_model, "--join", join)
    assert code == 2
    assert f"--join {join}: give HOST:PORT" in said


def test_no_token(capsys, bundled_model, monkeypatch):
    monkeypatch.delenv("RACKSCALE_TOKEN", raising=False)
    code, said = complaint(capsys, bundled_model, "--join", "127.0.0.1:1")
    assert code == 2
    assert "RACKSCALE_TOKEN is not set" in said


def test_no_model(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("RACKSCALE_TOKEN", TOKEN)
    code, said = complaint(capsys, tmp_path, "--join", "127.0.0.1:1")
    assert code == 2
    assert "has no config.json" in said
