import pytest
import torch

from rackscale.core import SpecError
from rackscale.runtime.precision import Products, precision_of


@pytest.mark.parametrize(
    ("activations", "quantised", "products"),
    [
        ("auto", False, Products.FP32),
        ("auto", True, Products.INT8),
        ("fp32", True, Products.FP32),
        ("bf16", False, Products.BF16),
        ("int8", True, Products.INT8),
        ("nvfp4", True, Products.NVFP4),
    ],
)
def test_kernels_that_pack_round_in_products_alone(activations, quantised, products):
    precision = precision_of(activations, packs=True, quantised=quantised)
    assert precision.products is products
    assert precision.dtype == torch.float32


@pytest.mark.parametrize(
    ("activations", "dtype"), [("auto", torch.float32), ("fp32", torch.float32), ("bf16", torch.bfloat16)]
)
def test_others_compute_in_the_dtype(activations, dtype):
    precision = precision_of(activations, packs=False, quantised=True)
    assert precision.products is Products.FP32
    assert precision.dtype == dtype


@pytest.mark.parametrize("activations", ["int8", "nvfp4"])
def test_others_do_not_round_to_a_few_bits(activations):
    with pytest.raises(SpecError, match=f"--activations {activations}"):
        precision_of(activations, packs=False, quantised=True)
