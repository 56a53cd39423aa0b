"""`rackscale quantize --calibrate`, on a model that is small enough to be measured in a second."""

import json

import pytest

from rackscale.checkpoint import open_checkpoint
from rackscale.cli import main

TEXT = (
    "an owl saw a cat on a mat; a man ran and sat. no word of it was in any book.\n" * 40
)  # bytes alone: no merges


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text(TEXT)
    return path


@pytest.mark.parametrize("method", ["rtn", "search"])
def test_scales_of_inputs_are_measured_and_written(make_folder, tmp_path, capsys, text, method):
    source, out = make_folder("qwen3_moe"), tmp_path / "out"
    words = ["quantize", source, out, "--method", method, "--calibrate", text, "--json"]
    assert main(list(map(str, words))) == 0
    result = json.loads(capsys.readouterr().out)
    checkpoint = open_checkpoint(out)
    packed = {role: checkpoint.packed(role) for role in checkpoint.metadata.sources}
    packed = {role: matrix for role, matrix in packed.items() if matrix is not None}
    assert len(packed) == result["tensors"]
    assert all(matrix.input_scale > 0 for matrix in packed.values())
    for role, matrix in packed.items():
        if role.endswith(".gate"):
            up = packed[f"{role.removesuffix('.gate')}.up"]
            assert (matrix.input_scale, matrix.tensor_scale) == (up.input_scale, up.tensor_scale)
    config = json.loads((out / "config.json").read_bytes())["quantization_config"]
    assert config["quant_algo"] == "NVFP4"
    assert not list(tmp_path.glob("*.partial"))
