"""`rackscale export` as a user meets it."""

import json
import subprocess

import pytest
import yaml

from rackscale.cli import main

DEPLOYMENT = '[deployment]\nmodel = "nowhere/m"\n[[group]]\nnum_ranks = 4\n'


@pytest.fixture
def deployment(tmp_path):
    path = tmp_path / "d.toml"
    path.write_text(DEPLOYMENT)
    return path


PLAN = (
    DEPLOYMENT
    + """
[plan]
model = "kimi-k2-thinking"
system = "gb200-nvl72"
weights = "nvfp4"
binding = "HBM for KV"
isl = 8192
osl = 1024
[[plan.pool]]
role = "prefill"
groups = 2
ranks = 8
tp = 1
ep = 8
batch_tokens = 16384
[[plan.pool]]
role = "decode"
groups = 1
ranks = 32
tp = 1
ep = 32
redundant_experts = 32
batch_per_rank = 64.0
[plan.point]
chips = 48
tokens_per_s_per_chip = { value = 4000.0 }
tpot_s = { value = 0.025 }
ttft_s = { value = 1.0 }
"""
)


@pytest.fixture
def plan(tmp_path):
    path = tmp_path / "plan.toml"
    path.write_text(PLAN)
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
        (
            ["DEPLOYMENT", "--to", "nomad"],
            "--to nomad is not known: give one of dynamo, sglang, trtllm, vllm",
        ),
        (["/nowhere.toml", "--to", "dynamo"], "/nowhere.toml cannot be read"),
        (["DEPLOYMENT", "--to", "dynamo"], "give --weights-gib X"),
        (["DEPLOYMENT", "--to", "dynamo", "--weights-gib", "1", "--ranks-per-host", "3"], "does not divide"),
        (["DEPLOYMENT", "--to", "dynamo", "--weights-gib", "1", "--ranks-per-host", "0"], "give at least 1"),
        (["DEPLOYMENT", "--to", "dynamo", "--weights-gib", "nan"], "--weights-gib"),
        (["DEPLOYMENT", "--to", "dynamo", "--weights-gib", "inf"], "--weights-gib"),
        (["DEPLOYMENT", "--to", "dynamo", "--weights-gib", "1", "--out", "FILE"], "cannot be written"),
        (
            ["DEPLOYMENT", "--to", "vllm"],
            "has no [plan] for vllm: give a file that `rackscale plan --out` wrote",
        ),
        (["DEPLOYMENT", "--to", "dynamo", "--backend", "sglang"], "has no [plan] for sglang"),
        (["DEPLOYMENT", "--to", "dynamo", "--checkpoint", "c"], "--checkpoint: leave it out"),
        (["PLAN", "--to", "vllm", "--backend", "vllm"], "--backend with --to vllm"),
        (["PLAN", "--to", "dynamo", "--backend", "tgi"], "--backend tgi is not known"),
        (["PLAN", "--to", "sglang", "--ranks-per-host", "4"], "--ranks-per-host for sglang: leave it out"),
        (["PLAN", "--to", "dynamo", "--weights-gib", "4"], "or give --backend rackscale"),
        (["PLAN", "--to", "vllm", "--out", "FILE"], "cannot be written"),
    ],
)
def test_bad_usage_is_one_line_and_exit_2(capsys, deployment, plan, words, says):
    places = {"DEPLOYMENT": deployment, "FILE": deployment, "PLAN": plan}
    code, out, err = run(capsys, *(places.get(word, word) for word in words))
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert says in err


@pytest.mark.parametrize("target", ["dynamo", "sglang", "trtllm", "vllm"])
def test_a_plan_is_launched_by_other_engines(capsys, plan, tmp_path, target):
    out = tmp_path / "launch"
    code, text, err = run(capsys, plan, "--to", target, "--out", out, "--json")
    assert (code, err) == (0, "")
    result = json.loads(text)
    assert (result["target"], result["gpus"]) == (target, 48)
    assert [pool["gpus"] for pool in result["pools"]] == [16, 32]
    assert any("give one in nvfp4" in note for note in result["notes"])
    assert result["versions"]
    assert result["files"] == [str(out / name) for name in result["contents"]]
    for name, content in result["contents"].items():
        assert (out / name).read_text() == content
        if name.endswith(".sh"):
            assert content.startswith("#!/bin/sh\n# ")
            assert (out / name).stat().st_mode & 0o111
            assert subprocess.run(["/bin/sh", "-n", out / name], check=False).returncode == 0
        else:
            assert list(yaml.safe_load_all(content))
    code, text, _ = run(capsys, plan, "--to", target, "--out", out)
    assert text.split() == result["files"]
    code, text, _ = run(capsys, plan, "--to", target)
    assert code == 0
    assert all(content.rstrip("\n") in text for content in result["contents"].values())


def test_dynamo_runs_the_engine_that_is_asked_for(capsys, plan):
    for words, framework in (
        ([], "trtllm"),
        (["--backend", "sglang"], "sglang"),
        (["--backend", "vllm"], "vllm"),
    ):
        code, text, _ = run(capsys, plan, "--to", "dynamo", *words)
        assert code == 0
        assert yaml.safe_load(text)["spec"]["backendFramework"] == framework
    code, text, _ = run(capsys, plan, "--to", "dynamo", "--backend", "rackscale", "--weights-gib", 1)
    assert code == 0
    graph = list(yaml.safe_load_all(text))[-1]
    assert "backendFramework" not in graph["spec"]
