"""One running server for all tests that do not end it."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from live_server import LiveServer, serving


@pytest.fixture(scope="session")
def server(bundled_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    with serving(bundled_model, tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.fixture(scope="session")
def vocab_size(bundled_model: Path) -> int:
    return json.loads((bundled_model / "config.json").read_text())["vocab_size"]


@pytest.fixture(scope="session")
def context_length(bundled_model: Path) -> int:
    return json.loads((bundled_model / "config.json").read_text())["max_position_embeddings"]
