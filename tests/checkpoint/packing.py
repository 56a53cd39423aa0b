"""Golden models packed by our own writers, and folders broken byte by byte."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from folders import WEIGHTS, set_config
from safetensors.torch import load_file, save_file

from rackscale.checkpoint import dequantize, open_metadata, quantize

Tensors = dict[str, torch.Tensor]


def compressed_tensors(form: str, **weights: object) -> dict[str, Any]:
    """The quantization_config of one group."""
    arguments = {"num_bits": 4, "type": "float", "symmetric": True, "dynamic": False, **weights}
    group = {"targets": ["Linear"], "weights": arguments, "input_activations": None}
    return {"quant_method": "compressed-tensors", "format": form, "config_groups": {"group_0": group}}


NVFP4_PACK = compressed_tensors("nvfp4-pack-quantized", strategy="tensor_group", group_size=16)
INT4_PACK = compressed_tensors("pack-quantized", type="int", strategy="group", group_size=32)
MXFP4_PACK = compressed_tensors("mxfp4-pack-quantized", strategy="group", group_size=32)
FP8_PACK = compressed_tensors("float-quantized", num_bits=8, strategy="block", block_structure=[128, 128])
MODELOPT = {"quant_method": "modelopt", "quant_algo": "NVFP4"}
DEEPSEEK = {"quant_method": "fp8", "fmt": "e4m3", "weight_block_size": [128, 128]}
GPT_OSS = {"quant_method": "mxfp4", "modules_to_not_convert": ["model.layers.*.self_attn"]}

FORMS: dict[str, tuple[str, dict[str, Any]]] = {
    "modelopt": ("nvfp4", MODELOPT),
    "compressed-tensors nvfp4": ("nvfp4-compressed-tensors", NVFP4_PACK),
    "compressed-tensors int4": ("int4-g32", INT4_PACK),
    "compressed-tensors mxfp4": ("mxfp4-compressed-tensors", MXFP4_PACK),
    "deepseek fp8": ("fp8-128x128", DEEPSEEK),
    "compressed-tensors fp8": ("fp8-128x128", FP8_PACK),
}


def is_expert(name: str) -> bool:
    """Routed ones."""
    return ".experts." in name and name.endswith(".weight")


def pack(folder: Path, form: str, chosen: Callable[[str], bool] = is_expert) -> Tensors:
    """Put the chosen matrices of a folder into a format. Returns what they are then, by name."""
    format_, config = FORMS[form]
    tensors, decoded = load_file(folder / WEIGHTS), {}
    for name in [name for name in tensors if chosen(name)]:
        packed = quantize(tensors.pop(name), format=format_)
        decoded[name] = dequantize(packed, format=format_)
        if config is FP8_PACK:
            packed["weight_scale"] = packed.pop("weight_scale_inv")
        tensors |= {f"{name.removesuffix('weight')}{part}": tensor for part, tensor in packed.items()}
    rewrite_weights(folder, tensors)
    set_config(folder, quantization_config=config)
    return decoded


def pack_gpt_oss(folder: Path) -> Tensors:
    """Put the fused experts of gpt-oss into MXFP4. Returns what they are then, [E, in, out], by name."""
    tensors, decoded = load_file(folder / WEIGHTS), {}
    for name in [name for name in tensors if name.endswith(("experts.gate_up_proj", "experts.down_proj"))]:
        packed = [quantize(matrix.T, format="mxfp4") for matrix in tensors.pop(name)]
        for part in ("blocks", "scales"):
            tensors[f"{name}_{part}"] = torch.stack([matrix[part] for matrix in packed])
        decoded[name] = torch.stack([dequantize(matrix, format="mxfp4").T for matrix in packed])
    rewrite_weights(folder, tensors)
    set_config(folder, quantization_config=GPT_OSS)
    return decoded


def rewrite_weights(folder: Path, tensors: Tensors) -> None:
    """Other weights in the folder's one file."""
    (folder / WEIGHTS).unlink()  # who has mapped the old file keeps it
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / WEIGHTS)


def poke(folder: Path, tensor: str, value: torch.Tensor) -> None:
    """Write over a tensor's first elements, in the file."""
    entry = open_metadata(folder, tokenizer_required=False).tensors[tensor]
    data = value.reshape(-1).view(torch.uint8).numpy().tobytes()
    with entry.file.open("r+b") as file:
        file.seek(entry.start)
        file.write(data)


def set_side_file(folder: Path, **quantization: object) -> None:
    """hf_quant_config.json alone says what the weights are in, as in older exports."""
    config = json.loads((folder / "config.json").read_bytes())
    config.pop("quantization_config", None)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "hf_quant_config.json").write_text(json.dumps({"quantization": quantization}))
