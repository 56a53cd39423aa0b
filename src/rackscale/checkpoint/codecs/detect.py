"""Which formats a checkpoint is in: what its folder says of them, and what tensors are there.

config.json (or hf_quant_config.json, in older exports of ModelOpt) names the formats. Which tensors are in
them is decided by the tensors: lists of what stays as it was are known to be incomplete.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from rackscale.checkpoint.codecs.codec import Codec, Scheme, module_of
from rackscale.checkpoint.codecs.nvfp4_modelopt import Nvfp4ModelOpt
from rackscale.checkpoint.codecs.plain import Plain
from rackscale.checkpoint.fields import Fields
from rackscale.checkpoint.safetensors_file import TensorEntry
from rackscale.checkpoint.shards import read_json
from rackscale.core import SpecError

SIDE_FILE = "hf_quant_config.json"  # where older ModelOpt exports say what config.json does not

Tensors = Mapping[str, TensorEntry]
PLAIN = Plain()


@dataclass(frozen=True, slots=True)
class AllPlain:
    """Nothing is packed."""

    def codec(self, _tensor: str, /) -> Codec:
        """Plain."""
        return PLAIN


@dataclass(frozen=True, slots=True)
class ModelOptScheme:
    """uint8 is NVFP4; the rest is what its dtype says."""

    tensors: Tensors

    def codec(self, tensor: str, /) -> Codec:
        """By the tensor's dtype."""
        entry = self.tensors.get(tensor)
        if entry is None or entry.dtype != "U8":
            return PLAIN
        refuse_input_scaling(tensor, self.tensors)
        return NVFP4


NVFP4 = Nvfp4ModelOpt()
MODELOPT_ALGORITHMS = ("NVFP4", "W4A16_NVFP4")


def refuse_input_scaling(tensor: str, tensors: Tensors) -> None:
    """AWQ exports scale a layer's inputs, channel by channel."""
    name = f"{module_of(tensor)}.pre_quant_scale"
    if name in tensors:
        raise SpecError(
            f"{name!r} in {tensors[name].file} scales a layer's inputs",
            hint="this form of AWQ is not implemented; use an export without it",
        )


def detect(config: Fields, tensors: Tensors) -> Scheme:
    """The formats of the checkpoint that this config.json and these tensors are of.

    Raises SpecError naming the file and the field where a format is not one that is read.
    """
    quantization = config.sub("quantization_config")
    if quantization is None:
        text = config.sub("text_config")
        quantization = None if text is None else text.sub("quantization_config")
    if quantization is None:
        side = config.path.parent / SIDE_FILE
        if not side.exists():
            return AllPlain()
        return _modelopt(_side(Fields(read_json(side), side)), tensors)
    method = quantization.get("quant_method", str)
    readers = {"modelopt": _modelopt}
    if method not in readers:
        raise SpecError(
            f"quantization_config in {config.path} has quant_method {method!r}",
            hint=f"supported: {', '.join(readers)}",
        )
    return readers[method](quantization, tensors)


def _side(side: Fields) -> Fields:
    quantization = side.sub("quantization")
    if quantization is None:
        raise SpecError(f"{side.path} has no quantization", hint="it is damaged; download it again")
    return quantization


def _modelopt(fields: Fields, tensors: Tensors) -> Scheme:
    algorithm = fields.get("quant_algo", str)
    algorithms: dict[str, object] = {"": algorithm}
    if algorithm == "MIXED_PRECISION":
        layers = fields.sub("quantized_layers")
        values = {} if layers is None else layers.values
        algorithms = {
            name: layer.get("quant_algo") if isinstance(layer, Mapping) else layer
            for name, layer in values.items()
        }
    for name, given in algorithms.items():
        if given not in MODELOPT_ALGORITHMS:
            of = f" for {name}" if name else ""
            raise SpecError(
                f"quant_algo in {fields.path} is {given!r}{of}",
                hint=f"supported: {', '.join(MODELOPT_ALGORITHMS)}",
            )
    fields.require("group_size", 16)
    return ModelOptScheme(tensors)
