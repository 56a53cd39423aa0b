"""A running server for the `openai` client."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from live_server import LiveServer, serving


@pytest.fixture(scope="session")
def server(quantised_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    with serving(quantised_model, tmp_path_factory.mktemp("server")) as running:
        yield running
