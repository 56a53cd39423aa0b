"""Rounding to nearest in C++ against ModelOpt's vectors, and against torch on whatever else is a number."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from rackscale.checkpoint.numerics import nvfp4
from rackscale.checkpoint.quantizer import quantize_packed
from rackscale.checkpoint.quantizer import round_to_nearest as rtn
from rackscale.core import SpecError

CASES = [
    "heavy_tailed_bf16", "large_bf16", "normal_bf16", "normal_fp32", "ties_bf16", "tiny_bf16",
    "wide_range_bf16", "wide_range_fp32", "zero_blocks_bf16",
]  # fmt: skip


@pytest.fixture(params=[True, False], ids=["native", "torch"])
def either(request, monkeypatch):
    """With the C++ encoder, and where no compiler was found."""
    if not request.param:
        monkeypatch.setattr(rtn, "HAS_NATIVE", False)


@pytest.fixture(scope="session")
def vectors(golden_nvfp4):
    return load_file(golden_nvfp4 / "nvfp4_modelopt.safetensors")


@pytest.mark.parametrize("case", CASES)
def test_modelopts_bits(either, vectors, case):
    weight = vectors[f"{case}.input"]
    packed = quantize_packed(weight, num_threads=2)
    assert torch.equal(packed.codes, vectors[f"{case}.weight"])
    assert torch.equal(packed.scales, vectors[f"{case}.weight_scale"].view(torch.uint8))
    assert packed.tensor_scale == vectors[f"{case}.weight_scale_2"].item()


@pytest.mark.parametrize("case", CASES)
def test_squares_are_those_of_the_decoded_matrix(either, vectors, case):
    weight = vectors[f"{case}.input"]
    packed = quantize_packed(weight)
    error, square = rtn.squares(weight, packed.codes, packed.scales, packed.tensor_scale)
    decoded = vectors[f"{case}.dequant_fp32"].double()
    assert error == pytest.approx((decoded - weight.double()).square().sum().item(), rel=1e-5)
    assert square == pytest.approx(weight.double().square().sum().item(), rel=1e-5)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    rows=st.integers(1, 5),
    blocks=st.integers(1, 9),
    dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.float16]),
    span=st.integers(0, 30),
)
def test_torchs_bits_on_any_numbers(seed, rows, blocks, dtype, span):
    generator = torch.Generator().manual_seed(seed)
    shape = (rows, 16 * blocks)
    powers = torch.randint(-span, span + 1, shape, generator=generator) // 2
    weight = (torch.randn(shape, generator=generator) * torch.exp2(powers)).clamp(-6e4, 6e4).to(dtype)
    weight[torch.rand(shape, generator=generator) < 0.1] = 0
    weight[torch.rand(shape, generator=generator) < 0.05] *= -0.0
    # Halves of E2M1's steps, exact under the scales that these blocks get.
    weight[0, :8] = torch.tensor([6.0, 0.25, -0.75, 1.25, -1.75, 2.5, -3.5, 5.0])
    tensor_scale = rtn.tensor_scale_of(rtn.largest(weight))
    codes, scales = rtn.encode(weight, tensor_scale)
    expected_codes, expected_scales, _ = nvfp4.encode(weight, torch.tensor(tensor_scale))
    assert torch.equal(codes, expected_codes)
    assert torch.equal(scales, expected_scales.view(torch.uint8))


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), dtype=st.sampled_from([torch.float32, torch.bfloat16]))
def test_torchs_bits_on_any_bits(seed, dtype):
    generator = torch.Generator().manual_seed(seed)
    word = torch.int32 if dtype == torch.float32 else torch.int16
    info = torch.iinfo(word)
    bits = torch.randint(info.min, info.max, (8, 64), generator=generator, dtype=torch.int64).to(word)
    weight = torch.nan_to_num(bits.view(dtype), nan=1.0, posinf=2.0, neginf=-2.0)
    tensor_scale = rtn.tensor_scale_of(rtn.largest(weight))
    codes, scales = rtn.encode(weight, tensor_scale)
    expected_codes, expected_scales, _ = nvfp4.encode(weight, torch.tensor(tensor_scale))
    assert torch.equal(codes, expected_codes)
    assert torch.equal(scales, expected_scales.view(torch.uint8))


def test_a_band_gives_its_rows_of_the_whole(either, vectors):
    weight = vectors["normal_bf16.input"]
    whole = quantize_packed(weight)
    band = quantize_packed(weight[32:64], tensor_amax=weight.abs().max().item())
    assert torch.equal(band.codes, whole.codes[32:64])
    assert torch.equal(band.scales, whole.scales[32:64])
    assert band.tensor_scale == whole.tensor_scale


def test_rows_and_columns_may_lie_apart(either, vectors):
    weight = vectors["normal_bf16.input"]
    for view, copy in (
        (weight[::2], weight[::2].clone()),
        (weight[:, ::2], weight[:, ::2].clone()),
        (weight.T, weight.T.clone()),
    ):
        assert torch.equal(quantize_packed(view).codes, quantize_packed(copy).codes)


def test_all_zeros(either):
    packed = quantize_packed(torch.zeros(4, 32))
    assert packed.tensor_scale == 1.0
    assert not packed.codes.any()
    assert (packed.scales == 0x38).all()  # 1.0


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_is_not_finite_is_refused(either, value, dtype):
    weight = torch.ones(8, 32, dtype=dtype)
    weight[5, 17] = value
    with pytest.raises(SpecError, match="not finite"):
        quantize_packed(weight)


def test_columns_that_are_no_whole_blocks_are_refused():
    with pytest.raises(SpecError, match="24 columns"):
        quantize_packed(torch.ones(8, 24))
