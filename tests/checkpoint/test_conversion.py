"""quantize and dequantize: how far any matrix may move, and what is refused."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rackscale.checkpoint import dequantize, quantize
from rackscale.core import SpecError

GROUPS = {
    "nvfp4": 16, "nvfp4-compressed-tensors": 16, "int4-g32": 32, "mxfp4": 32,
    "mxfp4-compressed-tensors": 32, "fp8-128x128": 1,
}  # fmt: skip


@st.composite
def matrices(draw: st.DrawFn, group: int) -> torch.Tensor:
    """Rows of any magnitudes, some of them zeros."""
    rows, columns = draw(st.integers(1, 5)), group * draw(st.integers(1, 4))
    exponents = draw(st.lists(st.integers(-60, 60), min_size=rows, max_size=rows))
    zeros = draw(st.lists(st.booleans(), min_size=rows, max_size=rows))
    numbers = torch.randn(rows, columns, generator=torch.Generator().manual_seed(draw(st.integers(0, 2**31))))
    powers = torch.exp2(torch.tensor(exponents, dtype=torch.float32))
    matrix = numbers * (powers * ~torch.tensor(zeros))[:, None]
    return matrix.to(draw(st.sampled_from([torch.float32, torch.bfloat16])))


@given(data=st.data())
def test_nvfp4_moves_a_number_by_no_more_than_its_blocks_scale(data: st.DataObject) -> None:
    weight = data.draw(matrices(16))
    packed = quantize(weight)
    scale, scales = packed["weight_scale_2"], packed["weight_scale"].float()
    largest = weight.float().abs().max()
    assert scale == (largest / 2688 if largest else 1.0)
    assert scales.min() >= 2.0**-9
    assert scales.max() <= 448
    steps = (scales * scale).repeat_interleave(16, 1)
    error = (dequantize(packed) - weight.float()).abs()
    assert (error <= steps * 1.0001).all()  # 4 and 6 are two apart, and 6.4 is the most that saturates


@given(data=st.data())
def test_int4_moves_a_number_by_half_a_step(data: st.DataObject) -> None:
    weight = data.draw(matrices(32)).bfloat16()
    packed = quantize(weight, format="int4-g32")
    steps = packed["weight_scale"].float().repeat_interleave(32, 1)
    error = (dequantize(packed, format="int4-g32") - weight.float()).abs()
    assert (error <= steps * 0.55).all()  # a half, and bf16's roundings of the scale and the quotient


@given(data=st.data(), form=st.sampled_from(["mxfp4", "mxfp4-compressed-tensors"]))
def test_mxfp4_moves_a_number_by_no_more_than_its_power_of_two(data: st.DataObject, form: str) -> None:
    weight = data.draw(matrices(32))
    packed = quantize(weight, format=form)
    scales = packed["scales" if form == "mxfp4" else "weight_scale"]
    steps = torch.exp2(scales.float() - 127).repeat_interleave(32, 1)
    assert ((dequantize(packed, format=form) - weight.float()).abs() <= steps).all()


@given(data=st.data())
def test_fp8_moves_a_number_by_a_sixteenth(data: st.DataObject) -> None:
    weight = data.draw(matrices(50))
    packed = quantize(weight, format="fp8-128x128")
    scales = packed["weight_scale_inv"].repeat_interleave(128, 1)[:, : weight.shape[1]]
    error = (dequantize(packed, format="fp8-128x128") - weight.float()).abs()
    assert (error <= weight.float().abs() / 16 * 1.0001 + scales * 2.0**-10).all()


@given(data=st.data(), form=st.sampled_from(sorted(GROUPS)))
def test_signs_and_zeros_stay(data: st.DataObject, form: str) -> None:
    weight = data.draw(matrices(GROUPS[form]))
    after = dequantize(quantize(weight, format=form), format=form)
    assert after.dtype == torch.float32
    assert after.shape == weight.shape
    assert (after * weight.float().sign() >= 0).all()
    assert not after[weight == 0].any()


@given(data=st.data())
def test_what_is_nvfp4_already_stays(data: st.DataObject) -> None:
    """Codes of a matrix whose blocks reach 6 and whose largest is 448 * 6 come back as they were."""
    codes = data.draw(st.lists(st.integers(0, 7), min_size=30, max_size=30))
    signs = data.draw(st.lists(st.sampled_from([-1.0, 1.0]), min_size=32, max_size=32))
    exponent = data.draw(st.integers(-30, 30))
    values = torch.tensor([0, 0.5, 1, 1.5, 2, 3, 4, 6])[torch.tensor([7, *codes[:15], 7, *codes[15:]])]
    scales = torch.tensor([448.0, data.draw(st.sampled_from([1.0, 1.125, 0.0625, 240.0]))])
    weight = (values * torch.tensor(signs)).view(2, 16) * scales[:, None]
    weight = weight.view(1, 32) * math.ldexp(1.0, exponent)
    assert torch.equal(dequantize(quantize(weight)), weight)


def test_a_search_errs_less_than_rounding() -> None:
    weight = torch.randn(64, 256, generator=torch.Generator().manual_seed(4)).bfloat16()
    rounded, searched = (dequantize(quantize(weight, method=method)) for method in ("rtn", "search"))
    errors = [(after - weight.float()).square().sum() for after in (searched, rounded)]
    assert errors[0] < 0.9 * errors[1]


def test_what_is_not_searched() -> None:
    with pytest.raises(SpecError, match="'mxfp4' has no search"):
        quantize(torch.ones(2, 64), format="mxfp4", method="search")


@pytest.mark.parametrize("form", GROUPS)
@pytest.mark.parametrize("number", [math.inf, -math.inf, math.nan])
def test_numbers_that_are_not_finite(form: str, number: float) -> None:
    weight = torch.zeros(2, 64)
    weight[1, 7] = number
    with pytest.raises(SpecError, match="not finite"):
        quantize(weight, format=form)


@pytest.mark.parametrize(("form", "group"), [item for item in GROUPS.items() if item[1] > 1])
def test_columns_that_are_no_whole_blocks(form: str, group: int) -> None:
    with pytest.raises(SpecError, match=f"{group + 8} columns") as refusal:
        quantize(torch.zeros(2, group + 8), format=form)
    assert str(group) in refusal.value.hint


def test_words_that_are_unknown() -> None:
    weight = torch.zeros(2, 64)
    with pytest.raises(SpecError, match="'int3'"):
        quantize(weight, format="int3")
    with pytest.raises(SpecError, match="'int3'"):
        dequantize({"weight": weight}, format="int3")
    with pytest.raises(SpecError, match="'guess'"):
        quantize(weight, method="guess")


@pytest.mark.parametrize("weight", [torch.zeros(32), torch.zeros(2, 32, dtype=torch.int8), torch.tensor(1.0)])
def test_what_is_no_matrix_of_floats(weight: torch.Tensor) -> None:
    with pytest.raises(SpecError, match="a tensor of shape"):
        quantize(weight)


@pytest.mark.parametrize("form", GROUPS)
def test_tensors_that_are_missing(form: str) -> None:
    packed = quantize(torch.ones(4, 64), format=form)
    for name in packed:
        if name == "weight_shape":
            continue
        with pytest.raises(SpecError, match="there is no"):
            dequantize({key: tensor for key, tensor in packed.items() if key != name}, format=form)


def test_tensors_that_do_not_fit_each_other() -> None:
    packed = quantize(torch.ones(4, 64))
    with pytest.raises(SpecError, match=r"'weight_scale' has shape \[4, 2\].*\[4, 4\]"):
        dequantize({**packed, "weight_scale": packed["weight_scale"][:, :2]})
    with pytest.raises(SpecError, match=r"'weight_scale' is torch.float32"):
        dequantize({**packed, "weight_scale": packed["weight_scale"].float()})
    with pytest.raises(SpecError, match=r"'weight_scale_2' is 0.0"):
        dequantize({**packed, "weight_scale_2": torch.zeros(())})
    with pytest.raises(SpecError, match="packed as nvfp4"):
        dequantize({**packed, "weight": torch.tensor(1, dtype=torch.uint8)})
