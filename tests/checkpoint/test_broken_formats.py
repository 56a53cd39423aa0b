"""What is wrong with packed weights is refused by the tensor's or the field's name.

From headers when the folder is opened, and what only the data shows when the tensor is read.
"""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from folders import MakeFolder, rewrite, set_config, set_entry
from packing import FORMS, MODELOPT, NVFP4_PACK, pack, pack_gpt_oss, poke, set_side_file

from rackscale.checkpoint import open_checkpoint, open_metadata
from rackscale.checkpoint.codecs.int4 import Int4Group32
from rackscale.checkpoint.codecs.mxfp4 import FusedMxfp4, Mxfp4
from rackscale.checkpoint.codecs.nvfp4_compressed_tensors import Nvfp4CompressedTensors
from rackscale.checkpoint.codecs.nvfp4_modelopt import Nvfp4ModelOpt
from rackscale.checkpoint.roles import Source
from rackscale.core import SpecError

UP = "model.layers.1.mlp.experts.3.up_proj"
ROLE = "layers.1.experts.3.up"
GROUP = NVFP4_PACK["config_groups"]["group_0"]


def of_group(**changes: object) -> dict[str, Any]:
    """A config of compressed-tensors with one group, changed."""
    return {**NVFP4_PACK, "config_groups": {"group_0": {**GROUP, **changes}}}


CONFIGS: dict[str, tuple[object, tuple[str, ...]]] = {
    "unknown method": ({"quant_method": "awq"}, ("quant_method", "awq")),
    "no method": ({"bits": 4}, ("quant_method",)),
    "unknown algorithm": ({**MODELOPT, "quant_algo": "FP8"}, ("quant_algo", "FP8", "config.json")),
    "awq of nvfp4": ({**MODELOPT, "quant_algo": "NVFP4_AWQ"}, ("quant_algo", "NVFP4_AWQ")),
    "no algorithm": ({"quant_method": "modelopt"}, ("quant_algo",)),
    "blocks of 32": ({**MODELOPT, "group_size": 32}, ("group_size", "32")),
    "one layer in fp8": (
        {**MODELOPT, "quant_algo": "MIXED_PRECISION", "quantized_layers": {UP: {"quant_algo": "FP8"}}},
        ("quant_algo", UP, "FP8"),
    ),
    "no groups": ({**NVFP4_PACK, "config_groups": {}}, ("config_groups",)),
    "a group of nothing": ({**NVFP4_PACK, "config_groups": {"g": None}}, ("config_groups", "g")),
    "a group of inputs": (of_group(weights=None), ("group_0", "weights")),
    "unknown packing": ({**NVFP4_PACK, "format": "marlin-24"}, ("format", "group_0", "marlin-24")),
    "no packing": ({**NVFP4_PACK, "format": None}, ("format", "group_0", "None")),
    "one bit": (of_group(weights={**GROUP["weights"], "num_bits": 1}), ("num_bits", "1")),
    "asymmetric": (of_group(weights={**GROUP["weights"], "symmetric": False}), ("symmetric", "False")),
    "rotated": ({**NVFP4_PACK, "transform_config": {"config_groups": {"u": 1}}}, ("transform_config",)),
    "sparse": ({**NVFP4_PACK, "sparsity_config": {"format": "sparse-24-bitmask"}}, ("sparsity_config",)),
    "fp8 by tensors": ({"quant_method": "fp8"}, ("weight_block_size",)),
    "other blocks": (
        {**FORMS["deepseek fp8"][1], "weight_block_size": [64, 64]},
        ("weight_block_size", "64"),
    ),
    "other floats": ({**FORMS["deepseek fp8"][1], "fmt": "e5m2"}, ("fmt", "e5m2")),
    "no object": ("nvfp4", ("quantization_config", "nvfp4")),
}


def assert_refused(action: Callable[[], object], words: tuple[str, ...]) -> None:
    with pytest.raises(SpecError) as refusal:
        action()
    assert [word for word in words if word not in str(refusal.value)] == []
    assert refusal.value.hint


@pytest.mark.parametrize("case", CONFIGS)
def test_a_config_that_is_not_implemented(make_folder: MakeFolder, case: str) -> None:
    config, words = CONFIGS[case]
    folder = make_folder("qwen3_moe")
    set_config(folder, quantization_config=config)
    assert_refused(lambda: open_metadata(folder), words)


def test_dense_and_not_rotated_is_said_too(make_folder: MakeFolder) -> None:
    folder = make_folder("qwen3_moe")
    config = {**NVFP4_PACK, "sparsity_config": {"format": "dense"}, "transform_config": {}}
    set_config(folder, quantization_config=config)
    open_metadata(folder)


def test_a_side_file_of_nothing(make_folder: MakeFolder) -> None:
    folder = make_folder("qwen3_moe")
    (folder / "hf_quant_config.json").write_text("{}")
    assert_refused(lambda: open_metadata(folder), ("hf_quant_config.json", "quantization"))


def test_a_side_file_of_another_algorithm(make_folder: MakeFolder) -> None:
    folder = make_folder("qwen3_moe")
    layers = {"model.layers.0.mlp": {"quant_algo": "W4A8_AWQ"}}
    set_side_file(folder, quant_algo="MIXED_PRECISION", quantized_layers=layers)
    assert_refused(lambda: open_metadata(folder), ("hf_quant_config.json", "model.layers.0.mlp", "W4A8_AWQ"))


def drop(tensor: str) -> Callable[[Path], None]:
    return lambda folder: rewrite(folder, lambda header: header.pop(tensor))


def entry(tensor: str, **changes: object) -> Callable[[Path], None]:
    return lambda folder: set_entry(folder, tensor, **changes)


HEADERS: dict[str, tuple[str, Callable[[Path], object], tuple[str, ...]]] = {
    "no block scales": ("modelopt", drop(f"{UP}.weight_scale"), (f"{UP}.weight_scale'",)),
    "no tensor scale": ("modelopt", drop(f"{UP}.weight_scale_2"), (f"{UP}.weight_scale_2",)),
    "scales of other blocks": (
        "modelopt", entry(f"{UP}.weight_scale", shape=[16, 8]), (f"{UP}.weight_scale", "[16, 8]", "[32, 4]"),
    ),
    "scales of another type": (
        "modelopt", entry(f"{UP}.weight_scale", dtype="U8"), (f"{UP}.weight_scale", "U8"),
    ),
    "codes of another shape": (
        "modelopt", entry(f"{UP}.weight", shape=[16, 64]), (f"{UP}.weight", "[16, 64]", "[32, 32]"),
    ),
    "two tensor scales": (
        "modelopt",
        entry(f"{UP}.weight_scale_2", shape=[2], dtype="BF16"),
        (f"{UP}.weight_scale_2", "[2]"),
    ),
    "inputs are scaled": (
        "modelopt",
        lambda folder: rewrite(folder, lambda h: h.update({f"{UP}.pre_quant_scale": h[f"{UP}.weight"]})),
        (f"{UP}.pre_quant_scale",),
    ),
    "fp8 beside nvfp4": (
        "modelopt", entry(f"{UP}.weight", shape=[32, 32], dtype="F8_E4M3"), (f"{UP}.weight", "[32, 32]"),
    ),
    "no global scale": (
        "compressed-tensors nvfp4", drop(f"{UP}.weight_global_scale"), (f"{UP}.weight_global_scale",),
    ),
    "no codes": ("compressed-tensors nvfp4", drop(f"{UP}.weight_packed"), (f"{UP}.weight'",)),
    "no group scales": ("compressed-tensors int4", drop(f"{UP}.weight_scale"), (f"{UP}.weight_scale",)),
    "group scales in fp16": (
        "compressed-tensors int4", entry(f"{UP}.weight_scale", dtype="F16"), (f"{UP}.weight_scale", "F16"),
    ),
    "words of codes are gone": ("compressed-tensors int4", drop(f"{UP}.weight_packed"), (f"{UP}.weight'",)),
    "bytes for words": (
        "compressed-tensors int4",
        entry(f"{UP}.weight_packed", dtype="U8", shape=[32, 32]),
        (f"{UP}.weight_packed", "nvfp4", "int4-g32"),
    ),
    "no scales of fp8": ("deepseek fp8", drop(f"{UP}.weight_scale_inv"), (f"{UP}.weight_scale_inv",)),
    "no exponents": ("compressed-tensors mxfp4", drop(f"{UP}.weight_scale"), (f"{UP}.weight_scale",)),
}  # fmt: skip


@pytest.mark.parametrize("case", HEADERS)
def test_headers_that_contradict_the_format(make_folder: MakeFolder, case: str) -> None:
    form, break_it, words = HEADERS[case]
    folder = make_folder("qwen3_moe")
    pack(folder, form)
    break_it(folder)
    assert_refused(lambda: open_metadata(folder), words)


@pytest.mark.parametrize("part", ["blocks", "scales"])
def test_half_of_the_fused_experts(make_folder: MakeFolder, part: str) -> None:
    folder = make_folder("gpt_oss")
    pack_gpt_oss(folder)
    name = f"model.layers.1.mlp.experts.gate_up_proj_{part}"
    rewrite(folder, lambda header: header.pop(name))
    assert_refused(lambda: open_metadata(folder), ("model.layers.1.mlp.experts.gate_up_proj",))


NAN, INFINITE = float("nan"), float("inf")
DATA: dict[str, tuple[str, str, torch.Tensor]] = {
    "block scale is NaN": ("modelopt", "weight_scale", torch.tensor([0x7F], dtype=torch.uint8)),
    "block scale is a negative NaN": ("modelopt", "weight_scale", torch.tensor([0xFF], dtype=torch.uint8)),
    "block scale is negative": ("modelopt", "weight_scale", torch.tensor([0x81], dtype=torch.uint8)),
    "tensor scale is zero": ("modelopt", "weight_scale_2", torch.tensor([0.0])),
    "tensor scale is NaN": ("modelopt", "weight_scale_2", torch.tensor([NAN])),
    "tensor scale is endless": ("modelopt", "weight_scale_2", torch.tensor([INFINITE])),
    "tensor scale is negative": ("modelopt", "weight_scale_2", torch.tensor([-1.0])),
    "global scale is zero": ("compressed-tensors nvfp4", "weight_global_scale", torch.tensor([0.0])),
    "global scale is NaN": ("compressed-tensors nvfp4", "weight_global_scale", torch.tensor([NAN])),
    "a block's is NaN": ("compressed-tensors nvfp4", "weight_scale", torch.tensor([0x7F], dtype=torch.uint8)),
    "group scale is negative": ("compressed-tensors int4", "weight_scale", torch.tensor([-1.0]).bfloat16()),
    "group scale is NaN": ("compressed-tensors int4", "weight_scale", torch.tensor([NAN]).bfloat16()),
    "group scale is endless": (
        "compressed-tensors int4",
        "weight_scale",
        torch.tensor([INFINITE]).bfloat16(),
    ),
    "shape is a lie": ("compressed-tensors int4", "weight_shape", torch.tensor([32, 32])),
    "exponent is NaN": ("compressed-tensors mxfp4", "weight_scale", torch.tensor([0xFF], dtype=torch.uint8)),
    "scale of fp8 is NaN": ("deepseek fp8", "weight_scale_inv", torch.tensor([NAN])),
    "scale of fp8 is negative": ("deepseek fp8", "weight_scale_inv", torch.tensor([-1.0])),
}


@pytest.mark.parametrize("case", DATA)
def test_scales_that_no_writer_may_write(make_folder: MakeFolder, case: str) -> None:
    form, part, value = DATA[case]
    folder = make_folder("qwen3_moe")
    pack(folder, form)
    poke(folder, f"{UP}.{part}", value)
    checkpoint = open_checkpoint(folder)
    for read in (checkpoint.tensor, checkpoint.packed):
        assert_refused(lambda read=read: read(ROLE), (f"{UP}.{part}",))
        assert read("layers.1.experts.2.up") is not None  # the others are as good as before


def test_an_input_scale_of_zero(golden_nvfp4: Path, tmp_path: Path) -> None:
    folder = tmp_path / "broken"
    shutil.copytree(golden_nvfp4 / "tiny_qwen3_moe_nvfp4", folder)
    poke(folder, f"{UP}.input_scale", torch.tensor([0.0]))
    checkpoint = open_checkpoint(folder, tokenizer_required=False)
    assert_refused(lambda: checkpoint.packed(ROLE), (f"{UP}.input_scale",))


@pytest.mark.parametrize(
    ("codec", "columns"),
    [(Nvfp4ModelOpt(), 24), (Nvfp4CompressedTensors(), 24), (Int4Group32(), 48), (Mxfp4(), 48)],
)
def test_columns_that_are_no_whole_blocks(codec: Any, columns: int) -> None:
    source = Source(tensor="a.weight", shape=(4, columns))
    assert_refused(lambda: codec.parts(source), ("a.weight", str(columns)))


@pytest.mark.parametrize("shape", [(16,), (2, 4, 16)])
def test_only_matrices_are_packed(shape: tuple[int, ...]) -> None:
    source = Source(tensor="a.weight", shape=shape)
    assert_refused(lambda: Nvfp4ModelOpt().parts(source), ("a.weight", "nvfp4"))


def test_fused_experts_of_half_a_block() -> None:
    source = Source(tensor="a", shape=(4, 48, 8), expert=1, transposed=True)
    assert_refused(lambda: FusedMxfp4().parts(source), ("'a'", "48", "mxfp4"))
