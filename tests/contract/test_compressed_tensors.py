"""The formats of compressed-tensors against the library itself: its bits are ours, and it reads what we
write."""

import warnings
from importlib import import_module
from types import SimpleNamespace

import pytest
import torch

from rackscale.checkpoint import dequantize, quantize

Tensors = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def library() -> SimpleNamespace:
    """The library, which warns while it is imported."""
    pytest.importorskip("compressed_tensors", reason="compressed-tensors is not installed")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        compressors = import_module("compressed_tensors.compressors")
        quantization = import_module("compressed_tensors.quantization")
        schemes = import_module("compressed_tensors.quantization.quant_scheme")
        utils = import_module("compressed_tensors.quantization.utils")

    def scheme(**arguments: object) -> object:
        weights = quantization.QuantizationArgs(**arguments)
        return quantization.QuantizationScheme(targets=["Linear"], weights=weights)

    return SimpleNamespace(
        nvfp4=compressors.NVFP4PackedCompressor,
        mxfp4=compressors.MXFP4PackedCompressor,
        int4=compressors.PackedQuantizationCompressor,
        fp8=compressors.FloatQuantizationCompressor,
        nvfp4_scheme=quantization.QuantizationScheme(targets=["Linear"], **schemes.NVFP4),
        mxfp4_scheme=quantization.QuantizationScheme(targets=["Linear"], **schemes.MXFP4A16),
        int4_scheme=scheme(num_bits=4, type="int", strategy="group", group_size=32, symmetric=True),
        fp8_scheme=scheme(num_bits=8, type="float", strategy="block", block_structure=[128, 128]),
        scales=utils.calculate_qparams,
        global_scale=utils.generate_gparam,
    )


def matrix(seed: int) -> torch.Tensor:
    """Random rows of magnitudes far apart, with a group of zeros."""
    generator = torch.Generator().manual_seed(seed)
    rows, columns = 3 + 5 * seed, 32 * (1 + seed)
    weight = torch.randn(rows, columns, generator=generator) * torch.logspace(-6, 2, rows)[:, None]
    weight[1, :32] = 0
    return weight.bfloat16()


def bounds(weight: torch.Tensor, group: int) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.aminmax(weight.unflatten(-1, (-1, group)), dim=-1)


def assert_same(ours: Tensors, theirs: Tensors) -> None:
    for name, tensor in ours.items():
        assert tensor.dtype == theirs[name].dtype, name
        assert tensor.shape == theirs[name].shape, name
        assert torch.equal(tensor.float(), theirs[name].float()), name


@pytest.mark.parametrize("seed", range(4))
def test_nvfp4(library: SimpleNamespace, seed: int) -> None:
    weight, scheme = matrix(seed), library.nvfp4_scheme
    whole = library.global_scale(weight.min(), weight.max())
    scale, _ = library.scales(*bounds(weight, 16), scheme.weights, global_scale=whole)
    state = {"weight": weight, "weight_scale": scale, "weight_global_scale": whole}
    theirs = dict(library.nvfp4.compress(state, scheme))
    ours = quantize(weight, format="nvfp4-compressed-tensors")
    assert_same(ours, theirs)
    read = library.nvfp4.decompress(dict(ours), scheme)["weight"].float()  # bf16
    exact = dequantize(ours, format="nvfp4-compressed-tensors")
    assert torch.allclose(read, exact, rtol=2.0**-7, atol=0)


@pytest.mark.parametrize("seed", range(4))
def test_int4(library: SimpleNamespace, seed: int) -> None:
    weight, scheme = matrix(seed), library.int4_scheme
    scale, zero = library.scales(*bounds(weight, 32), scheme.weights)
    state = {"weight": weight, "weight_scale": scale, "weight_zero_point": zero}
    ours = quantize(weight, format="int4-g32")
    assert_same(ours, dict(library.int4.compress(state, scheme)))
    read = library.int4.decompress(dict(ours), scheme)["weight"]
    assert torch.equal(read, dequantize(ours, format="int4-g32").bfloat16())


@pytest.mark.parametrize("seed", range(4))
def test_mxfp4(library: SimpleNamespace, seed: int) -> None:
    weight, scheme = matrix(seed), library.mxfp4_scheme
    scale, _ = library.scales(*bounds(weight, 32), scheme.weights)
    form = "mxfp4-compressed-tensors"
    ours = quantize(weight, format=form)
    assert_same(ours, dict(library.mxfp4.compress({"weight": weight, "weight_scale": scale}, scheme)))
    read = library.mxfp4.decompress(dict(ours), scheme)["weight"]
    assert torch.equal(read.float(), dequantize(ours, format=form))


def test_fp8_in_blocks_is_multiplied_by_its_scales(library: SimpleNamespace) -> None:
    """Under the name weight_scale, where DeepSeek says weight_scale_inv."""
    weight = torch.randn(192, 320, generator=torch.Generator().manual_seed(5)).bfloat16()
    ours = quantize(weight, format="fp8-128x128")
    state = {"weight": ours["weight"], "weight_scale": ours["weight_scale_inv"]}
    read = library.fp8.decompress(state, library.fp8_scheme)["weight"]
    assert torch.equal(read.float(), dequantize(ours, format="fp8-128x128"))
