"""Scripts, run with programs in the engines' place that print what they were given."""

import subprocess

import pytest

from rackscale.plan.export import export_plan
from rackscale.plan.export.flag_table import Variable
from rackscale.plan.export.script import command
from rackscale.plan.types import Band, PlannedDeployment, PlanPoint, PoolPlan
from rackscale.specs import Role

BAND = Band(value=1.0, low=1.0, high=1.0)
PLAN = PlannedDeployment(
    model="kimi-k2-thinking",
    system="gb200-nvl72",
    isl=1024,
    osl=1024,
    weights="int4",
    pools=(
        PoolPlan(role=Role.PREFILL, groups=2, ranks=4, tp=1, ep=4, batch_tokens=8192),
        PoolPlan(role=Role.DECODE, groups=1, ranks=16, tp=1, ep=16, batch_per_rank=8.0),
    ),
    point=PlanPoint(
        tokens_per_s_per_chip=BAND,
        output_tokens_per_s_per_chip=1.0,
        tpot_s=BAND,
        ttft_s=BAND,
        ttft_p99_s=1.0,
        tpot_p99_s=1.0,
        tokens_per_s_per_mw=1.0,
        usd_per_mtok=1.0,
        chips=24,
        concurrency=128.0,
    ),
    binding="HBM",
    operators={},
    memory={},
)


@pytest.fixture
def run(tmp_path):
    for name in ("vllm", "python3", "mpirun", "trtllm-serve"):
        program = tmp_path / name
        program.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
        program.chmod(0o755)

    def run(target, name, **variables):
        (file,) = (file for file in export_plan(PLAN, target).files if file.name == name)
        done = subprocess.run(
            ["/bin/sh", "-c", file.script],
            env={"PATH": str(tmp_path), **variables},
            capture_output=True,
            text=True,
            check=False,
        )
        return done.returncode, done.stdout.splitlines(), done.stderr

    return run


def after(words, flag):
    return words[words.index(flag) + 1]


def test_hosts_of_vllm(run):
    code, _, err = run("vllm", "decode.sh", NODE_RANK="0")
    assert code != 0
    assert "address of the first host" in err
    code, first, _ = run("vllm", "decode.sh", NODE_RANK="0", HEAD="10.0.0.1")
    assert code == 0
    assert first[:2] == ["serve", "moonshotai/Kimi-K2-Thinking"]
    assert after(first, "--data-parallel-address") == "10.0.0.1"
    assert after(first, "--kv-transfer-config") == '{"kv_connector": "NixlConnector", "kv_role": "kv_both"}'
    assert not {"--headless", "--data-parallel-start-rank"} & set(first)
    _, last, _ = run("vllm", "decode.sh", NODE_RANK="3", HEAD="10.0.0.1")
    assert "--headless" in last
    assert after(last, "--data-parallel-start-rank") == "12"
    assert run("vllm", "prefill.sh")[0] == 0


def test_hosts_of_sglang(run):
    code, words, _ = run("sglang", "decode.sh", NODE_RANK="2", HEAD="10.0.0.1")
    assert code == 0
    assert words[:2] == ["-m", "sglang.launch_server"]
    assert (after(words, "--node-rank"), after(words, "--dist-init-addr")) == ("2", "10.0.0.1:5000")
    code, _, err = run("sglang", "router.sh", PREFILL_0="a", DECODE_0="c")
    assert code != 0
    assert "PREFILL_1" in err
    code, words, _ = run("sglang", "router.sh", PREFILL_0="a", PREFILL_1="b", DECODE_0="c")
    assert code == 0
    assert " ".join(words).endswith(
        "--prefill http://a:30000 8998 --prefill http://b:30000 8998 --decode http://c:30000"
    )


def test_hosts_of_trtllm(run):
    code, words, _ = run("trtllm", "decode.sh", HOSTS="a:4,b:4,c:4,d:4")
    assert code == 0
    assert words[:4] == ["-n", "16", "-H", "a:4,b:4,c:4,d:4"]
    assert words[4:8] == ["trtllm-llmapi-launch", "trtllm-serve", "serve", "moonshotai/Kimi-K2-Thinking"]
    assert run("trtllm", "disaggregated.sh")[1] == ["disaggregated", "--config_file", "disaggregated.yaml"]


def test_words_are_quoted_but_variables():
    text = command(["run", "a b"], [("--x", "$HOME"), ("--y", Variable("$HOME"))], last='"$@"')
    assert text == "exec run 'a b' \\\n  --x '$HOME' \\\n  --y \"$HOME\" \\\n  \"$@\"\n"
