"""Two workers and a frontend that find each other by a folder."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from live_server import wait_until
from members import Member, check_prefixes_are_found, who_speaks, worker_words

from rackscale.cli import main
from rackscale.serve.discovery import endpoint_of

LONG = 700
GONE = 15.0


class Cluster:
    def __init__(self, model: Path, folder: Path) -> None:
        self.model, self.folder = model, folder
        found = folder / "found"
        found.mkdir()
        self.environment = {"DYN_FILE_KV": str(found)}
        self.workers = [self.start_worker(), self.start_worker()]
        self.frontend = Member(["frontend", "--discovery", "file"], folder, self.environment)

    def start_worker(self) -> Member:
        return Member(worker_words(self.model, "file"), self.folder, self.environment)

    def ready(self) -> "Cluster":
        for member in (*self.workers, self.frontend):
            member.wait_ready()
        return self

    def replace(self, worker: Member) -> None:
        """It is gone; another one comes."""
        self.workers.remove(worker)
        self.workers.append(self.start_worker().wait_ready())

    def end(self) -> None:
        for member in (*self.workers, self.frontend):
            member.end()


@pytest.fixture(scope="module")
def cluster(bundled_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    cluster = Cluster(bundled_model, tmp_path_factory.mktemp("cluster"))
    try:
        yield cluster.ready()
    finally:
        cluster.end()


def test_requests_go_where_their_prefix_is(cluster, vocab_size):
    check_prefixes_are_found(cluster.frontend, cluster.workers, vocab_size)


def test_a_worker_alone_is_not_for_clients(cluster):
    answer = cluster.workers[0].complete()
    assert answer.status == 404
    assert "ask the frontend" in answer.sentence
    assert cluster.workers[0].get("/rack").status == 200


def test_a_frontend_knows_the_models_of_its_workers(cluster):
    assert cluster.frontend.get("/health").json == {"status": "ready", "models": ["austen"]}
    assert b"dynamo_frontend_" in cluster.frontend.get("/metrics").body


def test_what_no_worker_takes_is_refused(cluster, vocab_size):
    answer = cluster.frontend.complete(prompt=[vocab_size])
    assert answer.status == 400


def test_several_choices_do_not_go_on(cluster):
    """Nor do they begin where a router still believes in a dead worker: so this is the first death here."""
    with cluster.frontend.stream(max_tokens=LONG, n=2) as chunks:
        next(chunks)
        worker = who_speaks(cluster.workers)
        worker.end()
        *_, last = chunks
    assert "error" in last
    cluster.replace(worker)


@pytest.mark.parametrize("max_tokens", [LONG, None])
def test_a_stream_goes_on_when_its_worker_dies(cluster, max_tokens, context_length):
    """The same text, since a draw depends on seed and place alone; and the same usage."""
    told = {} if max_tokens is None else {"max_tokens": max_tokens}
    dead = []

    def kill():
        dead.append(who_speaks(cluster.workers))
        dead[0].end()

    expected = cluster.frontend.story(**told)
    assert cluster.frontend.story(chunks=kill, **told) == expected
    _, num_prompt, num_output = expected
    assert num_output == (max_tokens or context_length - num_prompt)
    cluster.replace(dead[0])


def test_a_worker_that_is_told_to_end_ends_its_streams_first(cluster):
    worker = None

    def end():
        nonlocal worker
        worker = who_speaks(cluster.workers)
        worker.signal(signal.SIGTERM)
        wait_until(lambda: "draining" in worker.log, "the drain")

    *_, num_output = cluster.frontend.story(chunks=end, max_tokens=LONG)
    assert num_output == LONG
    assert worker.wait(GONE) == 0
    assert cluster.frontend.complete().status == 200
    cluster.replace(worker)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["frontend", "--discovery", "mem"], "give --discovery file or etcd"),
        (["frontend"], "ETCD_ENDPOINTS"),
        (["serve", ".", "--no-frontend"], "give --discovery file or etcd"),
        (["serve", "MODEL", "--discovery", "file"], "DYN_FILE_KV"),
    ],
)
def test_options_that_do_not_say_where_the_others_are(words, says, bundled_model, capsys, monkeypatch):
    for variable in ("ETCD_ENDPOINTS", "DYN_FILE_KV"):
        monkeypatch.delenv(variable, raising=False)
    assert main([str(bundled_model) if word == "MODEL" else word for word in words]) == 2
    assert says in capsys.readouterr().err


@pytest.mark.parametrize(
    ("model", "endpoint"),
    [
        ("austen", "rackscale.austen.generate"),
        ("Kimi-K2.5 (FP8)", "rackscale.kimi-k2-5-fp8.generate"),
        ("§", "rackscale.model.generate"),
    ],
)
def test_each_model_has_an_endpoint(model, endpoint):
    assert endpoint_of(model) == endpoint
