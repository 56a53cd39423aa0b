"""Codes, scales and values of every format, bit for bit those of the reference implementations.

The vectors and who made them: tests/golden/nvfp4/README.md.
"""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from rackscale.checkpoint import dequantize, quantize
from rackscale.checkpoint.numerics import e2m1, fp8, mxfp4, nvfp4

GOLDEN = Path(__file__).parents[1] / "golden" / "nvfp4"
CASES = (
    "normal_bf16", "normal_fp32", "heavy_tailed_bf16", "zero_blocks_bf16", "tiny_bf16", "large_bf16",
    "wide_range_bf16", "wide_range_fp32", "ties_bf16",
)  # fmt: skip


def golden(file: str, case: str) -> dict[str, torch.Tensor]:
    """The tensors of one case by what follows its name."""
    tensors = load_file(GOLDEN / f"{file}.safetensors")
    return {name.removeprefix(f"{case}."): t for name, t in tensors.items() if name.startswith(f"{case}.")}


def assert_same(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> None:
    """Equal to the last bit, of one shape and dtype: 0 and 8 are both zero, and differ."""
    for name, tensor in ours.items():
        assert tensor.dtype == theirs[name].dtype, name
        assert tensor.shape == theirs[name].shape, name
        bits = [t.contiguous().reshape(-1).view(torch.uint8) for t in (tensor, theirs[name])]
        assert torch.equal(*bits), name


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(
    ("file", "form"),
    [("nvfp4_modelopt", "nvfp4"), ("nvfp4_compressed_tensors", "nvfp4-compressed-tensors")],
)
def test_nvfp4_both_ways(file: str, form: str, case: str) -> None:
    theirs = golden(file, case)
    assert_same(quantize(theirs["input"], format=form), theirs)
    assert torch.equal(dequantize(theirs, format=form), theirs["dequant_fp32"])


@pytest.mark.parametrize("case", ["a", "b", "zero_group"])
def test_int4_both_ways(case: str) -> None:
    theirs = golden("int4_g32_compressed_tensors", case)
    assert_same(quantize(theirs["input"], format="int4-g32"), theirs)
    assert torch.equal(dequantize(theirs, format="int4-g32"), theirs["dequant_fp32"])
    theirs["weight_shape"] = theirs["weight_shape"].int()  # Kimi's
    assert torch.equal(dequantize(theirs, format="int4-g32"), theirs["dequant_fp32"])


@pytest.mark.parametrize(("case", "by_reciprocal"), [("aligned", True), ("edge", False)])
def test_fp8_both_ways(case: str, by_reciprocal: bool) -> None:  # noqa: FBT001 (a parameter of the test)
    theirs = golden("fp8_block128", case)
    rounded, scales = fp8.encode(theirs["input"], by_reciprocal=by_reciprocal)
    assert_same({"weight": rounded, "weight_scale_inv": scales}, theirs)
    assert torch.equal(dequantize(theirs, format="fp8-128x128"), theirs["dequant_fp32"])
    if by_reciprocal:
        assert_same(quantize(theirs["input"], format="fp8-128x128"), theirs)


@pytest.mark.parametrize("name", ["gate_up_proj", "down_proj"])
@pytest.mark.parametrize("expert", range(3))
def test_mxfp4_of_gpt_oss_both_ways(name: str, expert: int) -> None:
    theirs = {key: tensor[expert] for key, tensor in golden("mxfp4", "gpt_oss").items()}
    packed = {part: theirs[f"{name}_{part}"] for part in ("blocks", "scales")}
    assert_same(quantize(theirs[f"{name}_input"], format="mxfp4"), packed)
    assert torch.equal(dequantize(packed, format="mxfp4"), theirs[f"{name}_dequant_fp32"].T)


def test_mxfp4_of_compressed_tensors_both_ways() -> None:
    theirs = golden("mxfp4", "compressed_tensors")
    assert_same(quantize(theirs["input"], format="mxfp4-compressed-tensors"), theirs)
    ours = dequantize(theirs, format="mxfp4-compressed-tensors")
    assert torch.equal(ours.bfloat16(), theirs["decompress"])
    assert torch.equal(ours, theirs["decompress"].float())  # no more than 2 bits each: bf16 has them all


@pytest.mark.parametrize("magnitude", [0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5.0])
def test_ties(magnitude: float) -> None:
    exact = torch.tensor([magnitude])
    below, above = (torch.nextafter(exact, torch.tensor([end])) for end in (0.0, 9.0))
    codes = [int(e2m1.nearest_even(x)) for x in (below, exact, above)]
    assert codes[2] == codes[0] + 1
    assert codes[1] == codes[0] + codes[0] % 2  # the even of the two
    assert int(e2m1.nearest_toward_zero(exact)) == codes[0]


def test_every_power_of_two_of_mxfp4() -> None:
    exponents = torch.arange(255, dtype=torch.uint8)[:, None]
    ones = torch.full((255, 16), 0x22, dtype=torch.uint8)
    expected = torch.tensor([2.0 ** (number - 127) for number in range(255)])
    assert torch.equal(mxfp4.decode(ones, exponents), expected[:, None].expand(-1, 32))


@pytest.mark.parametrize("form", ["nvfp4", "mxfp4", "int4-g32", "fp8-128x128", "nvfp4-compressed-tensors"])
def test_a_matrix_of_zeros(form: str) -> None:
    zeros = torch.zeros(4, 64, dtype=torch.bfloat16)
    packed = quantize(zeros, format=form)
    assert not dequantize(packed, format=form).any()
    assert all(tensor.float().isfinite().all() for tensor in packed.values())


def test_a_shared_scale() -> None:
    """Gate and up share one, which need not be that of either."""
    gate, up = torch.randn(2, 8, 32, generator=torch.Generator().manual_seed(3)) * torch.tensor(
        [[[1]], [[9]]]
    )
    together = nvfp4.encode(torch.cat((gate, up)))
    codes, scales, scale = nvfp4.encode(gate, nvfp4.tensor_scale(torch.cat((gate, up))))
    assert torch.equal(codes, together[0][:8])
    assert torch.equal(scales.view(torch.uint8), together[1][:8].view(torch.uint8))
    assert torch.equal(scale, together[2])
