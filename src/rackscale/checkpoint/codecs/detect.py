"""Which formats a checkpoint is in, from what its folder says.

config.json, or hf_quant_config.json in older exports of ModelOpt, names the formats. Which tensors are in
them is decided by the tensors (see `schemes`): lists of what stays as it was are known to be incomplete.
"""

from collections.abc import Callable, Mapping

from rackscale.checkpoint.codecs.codec import Scheme
from rackscale.checkpoint.codecs.packed import Format
from rackscale.checkpoint.codecs.schemes import (
    CompressedTensorsScheme,
    Fp8Scheme,
    ModelOptScheme,
    Mxfp4Scheme,
    PlainScheme,
    Tensors,
)
from rackscale.checkpoint.fields import Fields
from rackscale.checkpoint.shards import read_json
from rackscale.core import SpecError

SIDE_FILE = "hf_quant_config.json"
MODELOPT_ALGORITHMS = ("NVFP4", "W4A16_NVFP4")
MIXED = "MIXED_PRECISION"
ARGUMENTS: dict[str, tuple[Format, dict[str, tuple[object, ...]]]] = {
    "nvfp4-pack-quantized": (
        Format.NVFP4,
        {"num_bits": (4,), "type": ("float",), "group_size": (16,), "symmetric": (True,)},
    ),
    "pack-quantized": (
        Format.INT4,
        {
            "num_bits": (4,), "type": ("int",), "group_size": (32,), "symmetric": (True,),
            "strategy": ("group",), "actorder": ("static", "weight"),
        },
    ),
    "mxfp4-pack-quantized": (
        Format.MXFP4,
        {"num_bits": (4,), "type": ("float",), "group_size": (32,), "symmetric": (True,)},
    ),
    "float-quantized": (
        Format.FP8,
        {"num_bits": (8,), "type": ("float",), "strategy": ("block",), "block_structure": ([128, 128],)},
    ),
}  # fmt: skip


def detect(config: Fields, tensors: Tensors) -> Scheme:
    """The formats of the checkpoint that this config.json and these tensors are of.

    Raises SpecError naming the file and the field where a format is not one that is read.
    """
    quantization = config.sub("quantization_config")
    if quantization is None and (text := config.sub("text_config")) is not None:
        quantization = text.sub("quantization_config")
    if quantization is not None:
        method = quantization.get("quant_method", str)
        if method not in METHODS:
            raise SpecError(
                f"quantization_config in {config.path} has quant_method {method!r}",
                hint=f"supported: {', '.join(METHODS)}",
            )
        return METHODS[method](quantization, tensors)
    side = config.path.parent / SIDE_FILE
    if not side.exists():
        return PlainScheme()
    fields = Fields(read_json(side), side).sub("quantization")
    if fields is None:
        raise SpecError(f"{side} has no quantization", hint="it is damaged; download it again")
    return _modelopt(fields, tensors)


def _modelopt(fields: Fields, tensors: Tensors) -> Scheme:
    algorithm = fields.get("quant_algo", str)
    if algorithm == MIXED:
        layers = fields.sub("quantized_layers")
        for name, layer in ({} if layers is None else layers.values).items():
            given = layer.get("quant_algo") if isinstance(layer, Mapping) else layer
            _check_algorithm(given, f"quant_algo of {name!r} in {fields.path}")
    else:
        _check_algorithm(algorithm, f"quant_algo in {fields.path}")
    fields.require("group_size", 16)
    return ModelOptScheme(tensors)


def _check_algorithm(given: object, where: str) -> None:
    if given not in MODELOPT_ALGORITHMS:
        raise SpecError(
            f"{where} is {given!r}", hint=f"supported: {', '.join(MODELOPT_ALGORITHMS)}, {MIXED} of these"
        )


def _compressed_tensors(fields: Fields, tensors: Tensors) -> Scheme:
    for name in ("sparsity_config", "transform_config"):
        given = fields.sub(name)
        if given is not None and given.values and given.values.get("format") != "dense":
            raise SpecError(f"{name} in {fields.path} is not empty", hint="it is not implemented")
    groups = fields.sub("config_groups")
    if groups is None or not groups.values:
        raise SpecError(f"{fields.path} has no config_groups", hint="they say what the weights are in")
    common = fields.optional("format", str)
    formats = frozenset(_format_of(groups.sub(name), name, common) for name in groups.values)
    return CompressedTensorsScheme(tensors, formats)


def _format_of(group: Fields | None, name: str, common: str | None) -> Format:
    """A group's format. Raises SpecError where it, or one of its arguments, is not implemented."""
    weights = None if group is None else group.sub("weights")
    if group is None or weights is None:
        raise SpecError(f"{name} in config_groups has no weights", hint="nothing else is read")
    given = group.optional("format", str) or common
    if given not in ARGUMENTS:
        raise SpecError(
            f"format of {name} in {group.path} is {given!r}", hint=f"supported: {', '.join(ARGUMENTS)}"
        )
    form, arguments = ARGUMENTS[given]
    for argument, allowed in arguments.items():
        weights.require(argument, *allowed)
    return form


def _fp8(fields: Fields, tensors: Tensors) -> Scheme:
    if fields.values.get("weight_block_size") is None:
        raise SpecError(
            f"quantization_config in {fields.path} has no weight_block_size",
            hint="FP8 is read in blocks of 128 x 128",
        )
    fields.require("weight_block_size", [128, 128])
    fields.require("fmt", "e4m3")
    fields.require("scale_fmt", "ue8m0", "float")
    return Fp8Scheme(tensors)


def _mxfp4(_fields: Fields, tensors: Tensors) -> Scheme:
    return Mxfp4Scheme(tensors)


METHODS: dict[str, Callable[[Fields, Tensors], Scheme]] = {
    "modelopt": _modelopt,
    "compressed-tensors": _compressed_tensors,
    "fp8": _fp8,
    "mxfp4": _mxfp4,
}
