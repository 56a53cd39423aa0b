"""Models by name, by file, and by a published config.json."""

import json
from pathlib import Path

import pytest

from rackscale.core import SpecError
from rackscale.plan.model_source import model_of
from rackscale.specs.catalog import load_model

GOLDEN = Path(__file__).parent.parent / "golden" / "logits"
PUBLISHED = GOLDEN / "deepseek_v3" / "config_published.json"


def changed(tmp_path, **fields):
    config = {**json.loads((GOLDEN / "qwen3_moe" / "config.json").read_text()), **fields}
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config))
    return path


def test_a_name_of_the_catalog():
    assert model_of("kimi-k2-thinking") is load_model("kimi-k2-thinking")


def test_a_published_config_is_read_as_the_checkpoint_is():
    read = model_of(str(PUBLISHED))
    config = json.loads(PUBLISHED.read_text())
    assert read.spec.moe.router.num_experts == config["n_routed_experts"]
    assert read.spec.num_layers == config["num_hidden_layers"]
    assert read.context == config["max_position_embeddings"]


def test_a_folder_and_its_file_are_the_same(tmp_path):
    path = changed(tmp_path)
    assert model_of(str(tmp_path)) == model_of(str(path))
    assert model_of(str(path)).name == tmp_path.name
    assert model_of(str(path)).weights == "bf16"


@pytest.mark.parametrize(
    ("quantised", "weights"),
    [
        ({"quant_method": "mxfp4"}, "mxfp4"),
        ({"quant_method": "modelopt"}, "nvfp4"),
        (
            {"quant_method": "compressed-tensors", "config_groups": {"0": {"weights": {"num_bits": 4}}}},
            "int4",
        ),
        (
            {
                "quant_method": "compressed-tensors",
                "config_groups": {"0": {"weights": {"num_bits": 4, "type": "float"}}},
            },
            "nvfp4",
        ),
        ({"quant_method": "compressed-tensors", "config_groups": {"0": {"weights": {"num_bits": 8}}}}, "fp8"),
    ],
)
def test_formats_of_quantised_checkpoints(tmp_path, quantised, weights):
    assert model_of(str(changed(tmp_path, quantization_config=quantised))).weights == weights


@pytest.mark.parametrize(
    ("fields", "what"),
    [
        ({"quantization_config": {"quant_method": "exl3"}}, "quant_method in .* is 'exl3'"),
        ({"quantization_config": {"quant_method": "compressed-tensors"}}, "has no weights of 4 or 8 bits"),
        ({"architectures": ["Unknown"]}, "architectures in"),
    ],
)
def test_what_is_not_known_is_refused(tmp_path, fields, what):
    with pytest.raises(SpecError, match=what):
        model_of(str(changed(tmp_path, **fields)))


def test_names_and_folders_that_are_not_there(tmp_path):
    with pytest.raises(SpecError, match="give kimi-k2-thinking"):
        model_of("kimi-k2-thinkin")
    with pytest.raises(SpecError, match=r"has no config.json"):
        model_of(str(tmp_path))
