"""`rackscale serve NAME.toml`: a deployment file names the model."""

from pathlib import Path

import pytest

from rackscale.cli import main

ROOT = Path(__file__).parents[2]


@pytest.fixture
def served(monkeypatch):
    options = []
    monkeypatch.setattr("rackscale.serve.server.serve", lambda given: options.append(given) or 0)
    return options


def test_the_file_is_model_and_layout(served):
    file = ROOT / "examples" / "deployments" / "disaggregated.toml"
    assert main(["serve", str(file), "--port", "9000"]) == 0
    assert served[0].deployment == file
    assert served[0].model == Path("models/austen-moe")
    assert served[0].port == 9000


def test_one_file_is_enough(served, capsys):
    assert main(["serve", "a.toml", "--deployment", "b.toml"]) == 2
    assert capsys.readouterr().err.endswith("a.toml and --deployment: give one deployment file\n")
    assert main(["serve", "a.toml"]) == 2
    assert "a.toml cannot be read" in capsys.readouterr().err
    assert served == []
