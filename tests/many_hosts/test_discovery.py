"""Two hosts, each a network namespace with a whole worker, that find each other by etcd."""

import http.client
import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from members import Member, check_prefixes_are_found, who_speaks, worker_words
from namespaces import ADDRESSES, Cable, why_not

ETCD_PORT = 2379
LONG = 600
MOST_TRIES = 20
LISTENING = "0A"
LOOPBACK, ANY = "0100007F", "00000000"


@contextmanager
def plugged() -> Iterator[Cable]:
    """Hosts that are not those of other tests."""
    cable = Cable()
    cable.names = {host: f"{name}-etcd" for host, name in cable.names.items()}
    try:
        cable.plug()
        yield cable
    finally:
        cable.unplug()


class Inside(Member):
    """A member on a host, which its clients have to be on too."""

    def __init__(
        self, cable: Cable, host: str, verb: list[str], folder: Path, environment: dict[str, str]
    ) -> None:
        self.cable, self.host = cable, host
        super().__init__([*verb, "--dynamo-host", ADDRESSES[host]], folder, environment, cable.words(host))

    def connect(self) -> http.client.HTTPConnection:
        connection = super().connect()
        self.cable.on(self.host, connection.connect)
        return connection


@contextmanager
def etcd(cable: Cable, host: str, folder: Path) -> Iterator[str]:
    """Its address, for clients."""
    url = f"http://{ADDRESSES[host]}:{ETCD_PORT}"
    clients = ["--listen-client-urls", url, "--advertise-client-urls", url]
    peers = ["--listen-peer-urls", "http://127.0.0.1:2380"]
    with (folder / "etcd.txt").open("wb") as log:
        process = subprocess.Popen(
            [*cable.words(host), "etcd", "--data-dir", str(folder / "etcd"), *clients, *peers],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        yield url
    finally:
        process.kill()
        process.wait()


class Rack:
    """Two hosts with a worker each, and a frontend on the first."""

    def __init__(self, cable: Cable, url: str, model: Path, folder: Path) -> None:
        there = (folder, {"ETCD_ENDPOINTS": url})
        self.cable = cable
        self.workers = [Inside(cable, host, worker_words(model, "etcd"), *there) for host in ADDRESSES]
        self.frontend = Inside(cable, "a", ["frontend", "--discovery", "etcd"], *there)
        self.vocab_size = json.loads((model / "config.json").read_text())["vocab_size"]

    def ready(self) -> "Rack":
        for member in (*self.workers, self.frontend):
            member.wait_ready()
        return self

    def end(self) -> None:
        for member in (*self.workers, self.frontend):
            member.end()

    def listeners(self, host: str) -> set[str]:
        """Addresses on which somebody listens, as the kernel writes them."""
        command = [*self.cable.words(host), "cat", "/proc/net/tcp"]
        table = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        rows = [line.split() for line in table.splitlines()[1:]]
        return {row[1].rpartition(":")[0] for row in rows if row[3] == LISTENING}


@pytest.fixture(scope="module")
def rack(bundled_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rack]:
    if shutil.which("etcd") is None:
        pytest.skip("etcd is not installed (Debian: etcd-server)")
    if (reason := why_not()) is not None:
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("rack")
    with ExitStack() as stack:
        cable = stack.enter_context(plugged())
        url = stack.enter_context(etcd(cable, "a", folder))
        rack = Rack(cable, url, bundled_model, folder)
        stack.callback(rack.end)
        yield rack.ready()


def test_requests_go_to_the_host_that_has_their_prefix(rack):
    check_prefixes_are_found(rack.frontend, rack.workers, rack.vocab_size)


def test_listeners_have_the_addresses_that_they_were_given(rack):
    """But for one: Dynamo's publisher of events binds every address, whatever it is told."""
    for host, address in ADDRESSES.items():
        own = bytes(reversed([int(octet) for octet in address.split(".")])).hex().upper()
        assert {own} <= rack.listeners(host) <= {own, LOOPBACK, ANY}


def test_a_stream_goes_on_when_its_host_is_cut_off(rack):
    """No connection is closed, nothing answers any more: the kernel notices, and the other host goes on."""
    far = rack.workers[1]
    was_there = False

    def cut_off():
        nonlocal was_there
        was_there = who_speaks(rack.workers) is far
        if was_there:
            rack.cable.cut()

    for number in range(MOST_TRIES):  # whichever host has it
        told = {"prompt": f"Chapter {number}", "max_tokens": LONG}
        expected = rack.frontend.story(**told)
        assert rack.frontend.story(chunks=cut_off, **told) == expected
        if was_there:
            return
    pytest.fail("no stream was on the other host")
