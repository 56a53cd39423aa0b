"""The verbs as a user meets them: exit codes, one line that says what to do, and the JSON."""

import json
import re

import pytest

from rackscale.cli import main
from rackscale.core import Arrive, Request, RequestId, Seconds
from rackscale.engine import build, entry_line, header_line
from rackscale.specs import DeploymentSpec, GroupSpec

VERBS = ["serve", "host", "frontend", "generate", "evaluate", "quantize", "export", "replay", "top"]


def run(capsys, *words):
    code = main([str(word) for word in words])
    output = capsys.readouterr()
    return code, output.out, output.err


def test_no_verb_shows_help(capsys):
    code, out, _ = run(capsys)
    assert code == 2
    assert all(verb in out for verb in VERBS)


def test_version(capsys):
    code, out, _ = run(capsys, "--version")
    assert code == 0
    assert out.startswith("rackscale ")


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_with_an_example(capsys, verb):
    code, out, _ = run(capsys, verb, "--help")
    assert code == 0
    assert re.search(rf"Example: (\w+=\S+ )?rackscale {verb}", " ".join(out.split()))


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["serv"], "No such command"),
        (["generate"], "Missing parameter: model"),
        (["generate", "MODEL", "--nope"], "No such option"),
        (["generate", "MODEL"], "give --prompt or --prompt-ids"),
        (["generate", "/nowhere", "--prompt", "x"], "/nowhere is not a folder"),
        (["generate", "GOLDEN", "--prompt", "x"], "no tokenizer.json"),
        (["generate", "GOLDEN", "--prompt-ids", "1,x"], "give them as 1,2,3"),
        (["generate", "GOLDEN", "--prompt-ids", "1,999"], "the vocabulary is 0 to 255"),
        (
            ["generate", "GOLDEN", "--prompt-ids", "1", "--mixed", "2", "--decode", "1"],
            "give one or the other",
        ),
        (["generate", "GOLDEN", "--prompt-ids", "1", "--prefill", "1"], "give both"),
        (["serve", "GOLDEN", "--hosts", "2"], "give --listen HOST:PORT"),
        (["serve", "GOLDEN", "--deployment", "x.toml", "--mixed", "2"], "give the file or"),
        (["generate", "GOLDEN", "--prompt-ids", "1", "--max-tokens", "0"], "at least one token"),
        (["generate", "GOLDEN", "--prompt-ids", "1", "--temperature", "nan"], "temperature is nan"),
        (["generate", "GOLDEN", "--prompt-ids", "1", "--max-model-len", "9999"], "give at most 1024"),
        (["generate", "GOLDEN", "--prompt-ids", "1", "--kv-gib", "0.00001"], "give --kv-gib"),
        (["generate", "GOLDEN", "--prompt-ids", "1", "--kernels", "cuda"], "'cuda' is not one of"),
        (["evaluate", "GOLDEN", "--text", "/nowhere.txt"], "/nowhere.txt cannot be read"),
        (["replay", "/nowhere.jsonl"], "not a file"),
        (["serve", "/nowhere"], "/nowhere is not a folder"),
        (["serve", "GOLDEN", "--tls-cert", "x.pem"], "give both or neither"),
    ],
)
def test_bad_usage_is_one_line_and_exit_2(capsys, golden_logits, words, says):
    words = [str(golden_logits / "mixtral") if word == "GOLDEN" else word for word in words]
    code, out, err = run(capsys, *words)
    assert code == 2
    assert out == ""
    lines = [line for line in err.splitlines() if line.startswith("rackscale: ")]
    assert len(lines) == 1
    assert says in lines[0]


def test_generate_json(capsys, golden_logits):
    folder = golden_logits / "kimi_k2"
    words = ["generate", folder, "--prompt-ids", "5,6,7,8", "--max-tokens", 4, "--logprobs", 2, "--json"]
    code, out, _ = run(capsys, *words)
    assert code == 0
    result = json.loads(out)
    assert len(result["token_ids"]) == len(result["logprobs"]) == len(result["top_logprobs"]) == 4
    assert result["text"] == ",".join(map(str, result["token_ids"]))
    assert result["finish_reason"] == "length"
    assert result["prompt_tokens"] == 4
    assert result["ttft_s"] > 0
    assert result["tpot_ms"] > 0
    for token, logprob, top in zip(
        result["token_ids"], result["logprobs"], result["top_logprobs"], strict=True
    ):
        assert top[0] == [token, logprob]  # greedy: the best is the one


def test_generate_prints_prose(capsys, bundled_model):
    words = ["generate", bundled_model, "--prompt", "It is a truth universally", "--max-tokens", 60]
    code, out, _ = run(capsys, *words)
    assert code == 0
    assert out.startswith("It is a truth universally")
    assert len(out.split()) > 30


def test_evaluate(capsys, bundled_model, tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("It is a truth universally acknowledged, that a single man must be in want of a wife.")
    code, out, _ = run(capsys, "evaluate", bundled_model, "--text", text, "--json")
    assert code == 0
    result = json.loads(out)
    assert set(result) == {"bits_per_byte", "perplexity", "tokens", "seconds"}
    assert 0.3 < result["bits_per_byte"] < 2.5


def test_replay(capsys, tmp_path):
    group = GroupSpec(num_blocks=8, max_running=2, max_batched_tokens=8)
    deployment = DeploymentSpec(model="m", groups=(group,), block_size=4, max_model_len=16)
    event = Arrive(request=Request(id=RequestId("r"), prompt=(1, 2, 3), max_tokens=2))
    entry = entry_line(Seconds(0.0), event, build(deployment).handle(event, Seconds(0.0)))
    log = tmp_path / "log.jsonl"
    log.write_bytes(header_line(deployment) + entry)
    assert run(capsys, "replay", log)[0] == 0
    log.write_bytes(header_line(deployment) + entry.replace(b'"num_new":[3]', b'"num_new":[2]'))
    code, out, _ = run(capsys, "replay", log, "--json")
    assert code == 1
    assert json.loads(out)["line"] == 2
