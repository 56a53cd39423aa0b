"""What an activation weighs on a link."""

from rackscale.core import SpecError
from rackscale.specs.catalog.table import closest

BYTES_PER_ELEMENT = {
    "bf16": 2.0,
    "fp8": 1 + 4 / 128,  # a scale in FP32 for 128 elements: DeepEP's 7392 bytes for hidden 7168
    "mxfp8": 1 + 1 / 32,
    "nvfp4": 1 / 2 + 1 / 16,  # TensorRT-LLM's 4032 bytes for hidden 7168
}


def bytes_per_element(name: str) -> float:
    """With its scales. Raises SpecError for an unknown format."""
    if name not in BYTES_PER_ELEMENT:
        raise SpecError(f"unknown wire format {name!r}", hint=closest(name, BYTES_PER_ELEMENT, "use"))
    return BYTES_PER_ELEMENT[name]
