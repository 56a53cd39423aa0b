"""`rackscale quantize` as a user meets it."""

import json

import pytest

from rackscale.checkpoint import open_checkpoint, quantizer
from rackscale.cli import main
from rackscale.cli import quantize as verb

FIELDS = {"tensors", "bytes_before", "bytes_after", "mse_relative", "seconds", "peak_rss_mib"}


def run(capsys, *words):
    code = main(["quantize", *map(str, words)])
    output = capsys.readouterr()
    return code, output.out, output.err


def test_json(capsys, bundled_model, tmp_path):
    code, out, _ = run(capsys, bundled_model, tmp_path / "out", "--scope", "linear", "--json")
    assert code == 0
    result = json.loads(out)
    assert set(result) == FIELDS
    checkpoint = open_checkpoint(tmp_path / "out")
    assert checkpoint.tokenizer is not None
    packed = [role for role in checkpoint.metadata.sources if checkpoint.packed(role)]
    assert result["tensors"] == len(packed)
    assert 0.30 < result["bytes_after"] / result["bytes_before"] < 0.35
    assert 0.008 < result["mse_relative"] < 0.010
    assert result["seconds"] > 0
    assert result["peak_rss_mib"] > 50


def test_a_quantised_model_still_writes_prose(capsys, bundled_model, tmp_path):
    assert run(capsys, bundled_model, tmp_path / "out")[0] == 0
    words = ["generate", tmp_path / "out", "--prompt", "It is a truth universally", "--max-tokens", 40]
    assert main(list(map(str, words))) == 0
    assert len(capsys.readouterr().out.split()) > 20


def test_a_table_for_people(capsys, golden_logits, tmp_path):
    code, out, _ = run(capsys, golden_logits / "mixtral", tmp_path / "out", "--format", "int4-g32")
    assert code == 0
    assert "matrices" in out
    assert str(tmp_path / "out") in out


def test_search(capsys, golden_logits, tmp_path):
    errors = []
    for method in ("rtn", "search"):
        words = [golden_logits / "mixtral", tmp_path / method, "--method", method, "--json"]
        code, out, _ = run(capsys, *words)
        assert code == 0
        errors.append(json.loads(out)["mse_relative"])
    assert errors[1] < 0.95 * errors[0]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["/nowhere", "OUT"], "/nowhere is not a folder"),
        (["GOLDEN", "GOLDEN"], "is there already"),
        (["GOLDEN", "OUT", "--format", "nvfp5"], "'nvfp5' is not one of"),
        (["GOLDEN", "OUT", "--scope", "all"], "'all' is not one of"),
        (["GOLDEN", "OUT", "--calibrate", "/nowhere.txt"], "/nowhere.txt cannot be read"),
        (["GOLDEN", "OUT", "--calibrate", "SHORT"], "too short to calibrate on"),
        (["GOLDEN", "OUT", "--calibrate", "BINARY"], "no UTF-8"),
        (["GOLDEN", "OUT", "--format", "int4-g32", "--method", "search"], "they are for nvfp4"),
        (["GOLDEN", "/proc/out"], "cannot be written"),
    ],
)
def test_bad_usage_is_one_line_and_exit_2(capsys, golden_logits, tmp_path, words, says):
    (tmp_path / "short.txt").write_text("It is a truth")
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe" * 1000)
    places = {
        "GOLDEN": golden_logits / "mixtral",
        "OUT": tmp_path / "out",
        "SHORT": tmp_path / "short.txt",
        "BINARY": tmp_path / "binary.txt",
    }
    code, out, err = run(capsys, *(places.get(word, word) for word in words))
    assert code == 2
    assert out == ""
    lines = [line for line in err.splitlines() if line.startswith("rackscale: ")]
    assert len(lines) == 1
    assert says in lines[0]
    assert not (tmp_path / "out").exists()


def test_options_are_those_of_the_quantizer():
    assert [item.value for item in verb.OutputFormat] == [item.value for item in quantizer.OutputFormat]
    assert [item.value for item in verb.Scope] == [item.value for item in quantizer.Scope]
