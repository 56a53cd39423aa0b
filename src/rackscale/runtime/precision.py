"""In what numbers a model is computed, by the name of the option."""

from dataclasses import dataclass
from enum import StrEnum

import torch

from rackscale.core import SpecError


class Products(StrEnum):
    """What a product's activations are rounded to; its weights are taken as they are.

    int8: one scale for each 128 columns of a token. nvfp4: as Blackwell does (W4A4). Weights that are not in
    four bits are multiplied in bf16 where these two are asked for.
    """

    FP32 = "fp32"
    BF16 = "bf16"
    INT8 = "int8"
    NVFP4 = "nvfp4"


@dataclass(frozen=True, kw_only=True, slots=True)
class Precision:
    """dtype: of activations and KV. products: of kernels that pack weights; others multiply in dtype."""

    dtype: torch.dtype
    products: Products


EXACT = Precision(dtype=torch.float32, products=Products.FP32)


def precision_of(activations: str, *, packs: bool, quantised: bool) -> Precision:
    """What `--activations` means. packs: the kernels do. quantised: the checkpoint is; `auto` is then int8.

    Raises SpecError where the kernels cannot.
    """
    if packs:
        auto = Products.INT8 if quantised else Products.FP32
        return Precision(
            dtype=torch.float32, products=auto if activations == "auto" else Products(activations)
        )
    dtypes = {"auto": torch.float32, "fp32": torch.float32, "bf16": torch.bfloat16}
    if activations not in dtypes:
        raise SpecError(
            f"--activations {activations} without native kernels",
            hint="the others compute in fp32 or bf16; install with a C++ compiler and CMake at hand",
        )
    return Precision(dtype=dtypes[activations], products=Products.FP32)
