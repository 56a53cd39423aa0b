"""Which format a checkpoint is in, from what its folder says."""

from rackscale.checkpoint.codecs.codec import Codec
from rackscale.checkpoint.codecs.plain import Plain
from rackscale.checkpoint.fields import Fields
from rackscale.core import SpecError

SIDE_FILE = "hf_quant_config.json"  # where older ModelOpt exports say what config.json does not


def detect(config: Fields) -> Codec:
    """The codec of the checkpoint that this config.json is of.

    Raises SpecError where the format is not one that is read.
    """
    quantization = config.sub("quantization_config")
    if quantization is not None:
        method = quantization.values.get("quant_method")
        raise SpecError(
            f"quantization_config in {config.path} has quant_method {method!r}",
            hint="fp32, bf16 and fp16 weights are read; use a checkpoint that is not quantised",
        )
    if (config.path.parent / SIDE_FILE).exists():
        raise SpecError(
            f"{config.path.parent / SIDE_FILE} says that the weights are quantised",
            hint="fp32, bf16 and fp16 weights are read; use a checkpoint that is not quantised",
        )
    return Plain()
