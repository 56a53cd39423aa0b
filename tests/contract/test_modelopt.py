"""NVFP4 and MXFP4 against nvidia-modelopt itself: its bits are ours, and it reads what we write."""

import warnings
from importlib import import_module
from types import SimpleNamespace

import pytest
import torch

from rackscale.checkpoint import dequantize, quantize


@pytest.fixture(scope="module")
def modelopt() -> SimpleNamespace:
    """The library, which warns while it is imported."""
    pytest.importorskip("modelopt", reason="nvidia-modelopt is not installed")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tensors = import_module("modelopt.torch.quantization.qtensor")
        return SimpleNamespace(
            mtq=import_module("modelopt.torch.quantization"),
            export=import_module("modelopt.torch.export.unified_export_hf"),
            nvfp4=tensors.NVFP4QTensor,
            mxfp4=tensors.MXFP4QTensor,
        )


def matrix(seed: int) -> torch.Tensor:
    """Random rows of magnitudes far apart, with a block of zeros."""
    generator = torch.Generator().manual_seed(seed)
    rows, columns = 3 + 5 * seed, 32 * (1 + seed)
    weight = torch.randn(rows, columns, generator=generator) * torch.logspace(-6, 2, rows)[:, None]
    weight[1, :16] = 0
    return weight.to((torch.float32, torch.bfloat16)[seed % 2])


def exported(modelopt: SimpleNamespace, weight: torch.Tensor) -> dict[str, torch.Tensor]:
    """A linear layer, calibrated, quantised and exported by ModelOpt."""
    rows, columns = weight.shape
    model = torch.nn.Sequential(torch.nn.Linear(columns, rows, bias=False, dtype=weight.dtype))
    model[0].weight.data = weight.clone()
    inputs = torch.randn(4, columns, generator=torch.Generator().manual_seed(1)).to(weight.dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        modelopt.mtq.quantize(model, modelopt.mtq.NVFP4_DEFAULT_CFG, lambda model: model(inputs))
        modelopt.export._export_quantized_weight(model[0], weight.dtype)
    return {name: tensor.detach() for name, tensor in model[0].state_dict().items()}


def read_by_modelopt(modelopt: SimpleNamespace, tensors: dict[str, torch.Tensor]) -> torch.Tensor:
    codes = tensors["weight"]
    shape = torch.Size((codes.shape[0], 2 * codes.shape[1]))
    return modelopt.nvfp4(shape, torch.float32, codes).dequantize(
        dtype=torch.float32,
        scale=tensors["weight_scale"],
        double_scale=tensors["weight_scale_2"],
        block_sizes={-1: 16},
    )


@pytest.mark.parametrize("seed", range(4))
def test_nvfp4(modelopt: SimpleNamespace, seed: int) -> None:
    weight = matrix(seed)
    theirs, ours = exported(modelopt, weight), quantize(weight)
    for name, tensor in ours.items():
        assert tensor.dtype == theirs[name].dtype
        assert torch.equal(tensor.float(), theirs[name].float()), name
    assert torch.equal(dequantize(theirs), read_by_modelopt(modelopt, theirs))
    assert torch.equal(read_by_modelopt(modelopt, ours), dequantize(ours))


@pytest.mark.parametrize("seed", range(4))
def test_mxfp4(modelopt: SimpleNamespace, seed: int) -> None:
    weight = matrix(seed).bfloat16()
    ours = quantize(weight, format="mxfp4")
    theirs, scales = modelopt.mxfp4.quantize(weight, block_size=32)
    assert torch.equal(ours["blocks"].flatten(1), theirs._quantized_data)
    assert torch.equal(ours["scales"].flatten(), scales.flatten())
    read = theirs.dequantize(dtype=torch.float32, scale=ours["scales"].reshape(-1, 1), block_sizes={-1: 32})
    assert torch.equal(dequantize(ours, format="mxfp4"), read)
