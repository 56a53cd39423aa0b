"""`rackscale export` as a user meets it."""

import json

import pytest
import yaml

from rackscale.cli import main

DEPLOYMENT = '[deployment]\nmodel = "nowhere/m"\n[[group]]\nnum_ranks = 4\n'


@pytest.fixture
def deployment(tmp_path):
    path = tmp_path / "d.toml"
    path.write_text(DEPLOYMENT)
    return path


def run(capsys, *words):
    code = main(["export", *(str(word) for word in words)])
    output = capsys.readouterr()
    return code, output.out, output.err


def test_help_has_an_example(capsys):
    code, out, _ = run(capsys, "--help")
    assert code == 0
    assert "Example: rackscale export deployment.toml --to dynamo" in " ".join(out.split())


def test_to_stdout(capsys, deployment):
    code, out, err = run(capsys, deployment, "--to", "dynamo", "--weights-gib", 1)
    assert (code, err) == (0, "")
    kinds = [document["kind"] for document in yaml.safe_load_all(out)]
    assert kinds == ["ConfigMap", "DynamoGraphDeployment"]


def test_to_a_folder(capsys, deployment, tmp_path):
    out = tmp_path / "new" / "manifests"
    words = [
        deployment,
        "--to",
        "dynamo",
        "--weights-gib",
        1,
        "--out",
        out,
        "--name",
        "graph",
        "--image",
        "i:1",
    ]
    words += ["--namespace", "ns", "--ranks-per-host", 2, "--model-claim", "claim", "--json"]
    code, text, _ = run(capsys, *words)
    assert code == 0
    result = json.loads(text)
    assert result["target"] == "dynamo"
    assert result["name"] == "graph"
    assert result["files"] == [str(out / "graph.yaml")]
    assert list(yaml.safe_load_all((out / "graph.yaml").read_text())) == result["manifests"]
    assert {manifest["metadata"]["namespace"] for manifest in result["manifests"]} == {"ns"}
    code, text, _ = run(capsys, *words[:-1])
    assert (code, text) == (0, f"{out / 'graph.yaml'}\n")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["DEPLOYMENT"], "Missing parameter: to"),
        (["DEPLOYMENT", "--to", "nomad"], "--to nomad is not known: give one of dynamo"),
        (["/nowhere.toml", "--to", "dynamo"], "/nowhere.toml cannot be read"),
        (["DEPLOYMENT", "--to", "dynamo"], "give --weights-gib X"),
        (["DEPLOYMENT", "--to", "dynamo", "--weights-gib", "1", "--ranks-per-host", "3"], "does not divide"),
        (["DEPLOYMENT", "--to", "dynamo", "--weights-gib", "1", "--ranks-per-host", "0"], "give at least 1"),
        (["DEPLOYMENT", "--to", "dynamo", "--weights-gib", "nan"], "--weights-gib"),
        (["DEPLOYMENT", "--to", "dynamo", "--weights-gib", "inf"], "--weights-gib"),
        (["DEPLOYMENT", "--to", "dynamo", "--weights-gib", "1", "--out", "FILE"], "cannot be written"),
    ],
)
def test_bad_usage_is_one_line_and_exit_2(capsys, deployment, words, says):
    places = {"DEPLOYMENT": deployment, "FILE": deployment}
    code, out, err = run(capsys, *(places.get(word, word) for word in words))
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert says in err
