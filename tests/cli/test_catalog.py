"""`rackscale catalog` as a user meets it."""

import json

import pytest

from rackscale.cli import main

AIC = "https://github.com/ai-dynamo/aiconfigurator"
MINE = """
name = "mine"
title = "My chip"
generation = "other"
[facts]
tensor_bf16 = { value = 1, unit = "PFLOP/s", source = "me", confidence = "assumed" }
hbm = { value = 100, unit = "GB", source = "me", confidence = "assumed", note = "a guess [1/2]" }
hbm_bandwidth = { value = 4, unit = "TB/s", source = "a datasheet", confidence = "vendor" }
tdp = { value = 500, unit = "W", source = "me", confidence = "assumed" }
"""


def run(capsys, *words):
    code = main(["catalog", *(str(word) for word in words)])
    output = capsys.readouterr()
    return code, output.out, output.err


def run_json(capsys, *words):
    code, out, err = run(capsys, *words, "--json")
    assert (code, err) == (0, "")
    assert out.count("\n") == 1
    return json.loads(out)


def test_help_has_an_example(capsys):
    code, out, _ = run(capsys, "--help")
    assert code == 0
    assert "Example: rackscale catalog systems gb200-nvl72" in " ".join(out.split())


def test_lists_of_all_kinds(capsys):
    code, out, err = run(capsys)
    assert (code, err) == (0, "")
    for name in ("kimi-k2-thinking", "gb200-nvl72", "mi355x", "r200"):
        assert name in out


def test_a_list_has_the_key_figures(capsys):
    _, out, _ = run(capsys, "systems")
    line = next(line for line in out.splitlines() if "hgx-h800" in line)
    assert "- / 1.98 / 0.99" in line
    assert "1.37 / 1.73" in line
    assert "- / - / 2.00" in line
    assert "vr200-nvl72 *" in out
    _, out, _ = run(capsys, "models")
    line = next(line for line in out.splitlines() if "kimi-k2-thinking" in line)
    for cell in ("61 (60)", "MLA 64 x 512 + 64", "384 top-8", "1026.41", "70272", "int4"):
        assert cell in line


def test_lists_as_json(capsys):
    lists = run_json(capsys)
    assert list(lists) == ["models", "systems", "chips"]
    (rack,) = (row for row in lists["systems"] if row["name"] == "gb200-nvl72")
    assert rack["domain_chips"] == 72
    assert rack["tensor_flops"]["fp4"] == 1e16
    assert rack["power_w"] == {"it": 1870, "utility": 2100}
    assert list(run_json(capsys, "chips")) == ["chips"]


@pytest.mark.parametrize("words", [("systems", "gb200-nvl72"), ("gb200-nvl72",)])
def test_every_field_of_one(capsys, words):
    result = run_json(capsys, *words)
    assert (result["kind"], result["name"]) == ("system", "gb200-nvl72")
    assert result["spec"]["host_link_bytes_per_s"] == 225e9
    assert result["fields"]["power_it"]["confidence"] == "analyst"
    assert result["fields"]["hbm"] == {
        "value": 189471,
        "unit": "MiB",
        "source": f"{AIC} systems/gb200.yaml (aiconfigurator-core 0.12.0)",
        "confidence": "measured",
        "note": "by nvidia-smi: 185.0 GiB, 198.67e9 B; labels of 186 GB are GiB",
    }


def test_a_model_with_its_counts(capsys):
    result = run_json(capsys, "models", "deepseek-r1")
    assert result["spec"]["total_params"] == 671026404352
    assert result["spec"]["kv_heads"] == 1
    assert result["fields"]["router.num_experts"]["value"] == 256
    assert run_json(capsys, "qwen3-30b-a3b")["spec"]["kv_heads"] == 4


def test_fields_as_a_table_with_numbered_sources(capsys, tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(MINE)
    code, out, err = run(capsys, "chips", path)
    assert (code, err) == (0, "")
    assert "My chip" in out
    assert "a guess [1/2]" in out  # no markup
    line = next(line for line in out.splitlines() if "hbm_bandwidth" in line)
    assert [cell.strip() for cell in line.strip("│").split("│")] == [
        "hbm_bandwidth",
        "4",
        "TB/s",
        "vendor",
        "[2]",
        "",
    ]
    assert "[2] a datasheet" in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("system",), "'system' is neither a kind nor a name: give systems"),
        (("gb200-nvl7",), "'gb200-nvl7' is neither a kind nor a name: give gb200-nvl72"),
        (("sistems", "gb200-nvl72"), "'sistems' is neither a kind nor a name: give systems"),
        (("systems", "hgx-h20"), "the catalog has no system 'hgx-h20': give hgx-h200, or a TOML file's path"),
        (("my.toml",), "my.toml may be of any kind: give one of models, systems, chips before the path"),
        (("chips", "my.toml"), "my.toml cannot be read (No such file or directory)"),
    ],
)
def test_a_mistake_is_one_line(capsys, words, message):
    code, out, err = run(capsys, *words)
    assert (code, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1
