"""The files beside the weights: what of the source's stays, and what says how the weights are packed."""

import json
import shutil
from pathlib import Path
from typing import Any

from rackscale import __version__
from rackscale.checkpoint.codecs.detect import SIDE_FILE
from rackscale.checkpoint.quantizer.excluded import excluded_globs
from rackscale.checkpoint.quantizer.layouts import OutputFormat
from rackscale.checkpoint.quantizer.plan import Plan
from rackscale.checkpoint.shards import INDEX, read_json

CONFIG = "config.json"
COPIED = frozenset({".json", ".jinja", ".model", ".py", ".tiktoken", ".txt"})
COPIED_STEMS = frozenset({"LICENSE", "NOTICE"})
WRITTEN = frozenset({CONFIG, SIDE_FILE, INDEX})
PRODUCER = {"name": "rackscale", "version": __version__}


def write_config_files(source: Path, to: Path, plan: Plan, form: OutputFormat, *, calibrated: bool) -> None:
    """config.json with its quantization_config, hf_quant_config.json for ModelOpt's format, the index of
    shards, and copies of the tokenizer and whatever else is text."""
    for path in sorted(source.iterdir()):
        kept = path.suffix in COPIED or path.stem in COPIED_STEMS
        if kept and path.is_file() and path.name not in WRITTEN and not path.name.startswith("."):
            shutil.copyfile(path, to / path.name)
    config = read_json(source / CONFIG)
    text = config.get("text_config")
    if isinstance(text, dict):
        text.pop("quantization_config", None)
    config["quantization_config"] = quantization_config(plan, form, calibrated=calibrated)
    _write(to / CONFIG, config)
    if form == OutputFormat.NVFP4:
        _write(to / SIDE_FILE, _side_file(plan, calibrated=calibrated))
    if len(plan.shards) > 1:
        weight_map = {entry.name: shard.name for shard in plan.shards for entry in shard.entries}
        metadata = {"total_size": plan.bytes_after}
        _write(to / INDEX, {"metadata": metadata, "weight_map": dict(sorted(weight_map.items()))})


def quantization_config(plan: Plan, form: OutputFormat, *, calibrated: bool) -> dict[str, Any]:
    """The block of config.json. calibrated: inputs have scales, so that engines may quantise them too."""
    # Engines look for linear layers; an embedding is none.
    kept = [module for module in plan.kept if not module.endswith("embed_tokens")]
    numbers: dict[str, Any]
    match form:
        case OutputFormat.NVFP4:
            numbers = {"dynamic": False, "num_bits": 4, "type": "float", "group_size": 16}
            measured = {"input_activations": numbers} if calibrated else {}
            return {
                "config_groups": {"group_0": {**measured, "weights": numbers, "targets": ["Linear"]}},
                "ignore": excluded_globs(plan.kept, plan.quantised),
                "quant_algo": _algorithm(calibrated=calibrated),
                "producer": PRODUCER,
                "quant_method": "modelopt",
            }
        case OutputFormat.NVFP4_COMPRESSED_TENSORS:
            weights = {"num_bits": 4, "type": "float", "strategy": "tensor_group", "group_size": 16}
            numbers = {**weights, "symmetric": True, "dynamic": False}
            inputs = {**weights, "symmetric": True, "dynamic": "local"} if calibrated else None
            return _compressed_tensors("nvfp4-pack-quantized", numbers, inputs, kept)
        case OutputFormat.INT4:
            numbers = {"num_bits": 4, "type": "int", "strategy": "group", "group_size": 32}
            return _compressed_tensors(
                "pack-quantized", {**numbers, "symmetric": True, "dynamic": False}, None, kept
            )
        case OutputFormat.MXFP4:
            numbers = {"num_bits": 4, "type": "float", "strategy": "group", "group_size": 32}
            scales = {"symmetric": True, "dynamic": False, "scale_dtype": "torch.uint8"}
            return _compressed_tensors("mxfp4-pack-quantized", {**numbers, **scales}, None, kept)
        case OutputFormat.FP8:
            return {
                "quant_method": "fp8",
                "fmt": "e4m3",
                "activation_scheme": "dynamic",
                "weight_block_size": [128, 128],
                "modules_to_not_convert": kept,
            }


def _compressed_tensors(
    form: str, weights: dict[str, Any], inputs: dict[str, Any] | None, ignore: list[str]
) -> dict[str, Any]:
    group = {"targets": ["Linear"], "weights": weights, "input_activations": inputs}
    return {
        "quant_method": "compressed-tensors",
        "format": form,
        "quantization_status": "compressed",
        "config_groups": {"group_0": {**group, "output_activations": None, "format": form}},
        "ignore": ignore,
        "kv_cache_scheme": None,
    }


def _algorithm(*, calibrated: bool) -> str:
    return "NVFP4" if calibrated else "W4A16_NVFP4"


def _side_file(plan: Plan, *, calibrated: bool) -> dict[str, Any]:
    return {
        "producer": PRODUCER,
        "quantization": {
            "quant_algo": _algorithm(calibrated=calibrated),
            "kv_cache_quant_algo": None,
            "group_size": 16,
            "exclude_modules": excluded_globs(plan.kept, plan.quantised),
        },
    }


def _write(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
