"""NVFP4 by rounding to nearest, with ModelOpt's bits: in C++ where it is built, or by torch."""

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from importlib.util import find_spec

import numpy as np
import torch
from torch import Tensor

from rackscale.checkpoint.codecs import Format, Packed
from rackscale.checkpoint.numerics import nvfp4
from rackscale.checkpoint.quantizer.encoder import Encoder
from rackscale.core import SpecError

# Built without a compiler there is no such module.
HAS_NATIVE = find_spec("rackscale.checkpoint._encode") is not None
if HAS_NATIVE:
    from rackscale.checkpoint import _encode

NATIVE = {torch.float32: "fp32", torch.bfloat16: "bf16"}


def tensor_scale_of(amax: float) -> float:
    """weight_scale_2 of matrices whose largest magnitude is this. All zeros: 1, as a scale of 0 has no
    quotients."""
    return float(np.float32(amax) / np.float32(nvfp4.SPAN)) or 1.0


def largest(weight_NK: Tensor) -> float:
    """The largest magnitude; not finite where one of the numbers is not."""
    if not HAS_NATIVE:
        return float(weight_NK.abs().max())
    weight = _native(weight_NK)
    function = _encode.largest_bf16 if weight.dtype == torch.bfloat16 else _encode.largest_fp32
    rows, columns = weight.shape
    return function(weight.data_ptr(), rows, columns, weight.stride(0))


def encode(weight_NK: Tensor, tensor_scale: float) -> tuple[Tensor, Tensor]:
    """Codes uint8 [N, K / 2] and the bits of scales uint8 [N, K / 16]. Any band of rows gives its rows of the
    whole. Numbers are finite."""
    if not HAS_NATIVE:
        codes, scales, _ = nvfp4.encode(weight_NK, torch.tensor(tensor_scale))
        return codes, scales.view(torch.uint8)
    weight = _native(weight_NK)
    rows, columns = weight.shape
    codes = torch.empty((rows, columns // 2), dtype=torch.uint8)
    scales = torch.empty((rows, columns // nvfp4.BLOCK), dtype=torch.uint8)
    function = _encode.encode_nvfp4_bf16 if weight.dtype == torch.bfloat16 else _encode.encode_nvfp4_fp32
    function(
        weight.data_ptr(), rows, columns, weight.stride(0), tensor_scale, codes.data_ptr(), scales.data_ptr()
    )
    return codes, scales


def squares(weight_NK: Tensor, codes: Tensor, scales: Tensor, tensor_scale: float) -> tuple[float, float]:
    """Sums over the matrix of squared errors and of squared weights, whoever encoded it."""
    if not HAS_NATIVE:
        decoded = nvfp4.decode(codes, scales, torch.tensor(tensor_scale))
        weight = weight_NK.float()
        return float((decoded - weight).square().sum()), float(weight.square().sum())
    weight = _native(weight_NK)
    function = _encode.compare_nvfp4_bf16 if weight.dtype == torch.bfloat16 else _encode.compare_nvfp4_fp32
    codes, scales = codes.contiguous(), scales.contiguous()
    rows, columns = weight.shape
    return function(
        weight.data_ptr(), rows, columns, weight.stride(0), tensor_scale, codes.data_ptr(), scales.data_ptr()
    )


def quantize_packed(weight_NK: Tensor, tensor_amax: float | None = None, num_threads: int = 1) -> Packed:
    """A matrix in NVFP4, rounded as ModelOpt rounds.

    tensor_amax: the largest magnitude of all matrices that share the tensor scale; None: of this one.
    Raises SpecError where columns are no multiple of 16, or a number is not finite.
    """
    rows, columns = weight_NK.shape
    if columns % nvfp4.BLOCK:
        raise SpecError(f"a matrix of {columns} columns", hint=f"NVFP4 needs a multiple of {nvfp4.BLOCK}")
    size = max(1, -(-rows // num_threads))
    bands = weight_NK.split(size)
    with ThreadPoolExecutor(num_threads) as pool:
        own = max(pool.map(largest, bands), default=0.0)
        amax = own if tensor_amax is None else tensor_amax
        if not all(map(math.isfinite, (own, amax))):
            raise SpecError("a matrix has numbers that are not finite", hint="the checkpoint is damaged")
        tensor_scale = tensor_scale_of(amax)
        encoded = list(pool.map(lambda band: encode(band, tensor_scale), bands))
    return Packed(
        format=Format.NVFP4,
        codes=torch.cat([codes for codes, _ in encoded]),
        scales=torch.cat([scales for _, scales in encoded]),
        tensor_scale=tensor_scale,
    )


def finite_amax(values: Sequence[float], tensor: str) -> float:
    """The largest of bands' largest. Raises SpecError naming the tensor where a number is not finite."""
    if not all(map(math.isfinite, values)):
        raise SpecError(
            f"tensor {tensor!r} has numbers that are not finite",
            hint="the file is damaged; download it again",
        )
    return max(values)


def _native(weight_NK: Tensor) -> Tensor:
    """In a dtype that C++ reads, columns side by side."""
    weight = weight_NK if weight_NK.dtype in NATIVE else weight_NK.float()
    return weight if weight.stride(1) == 1 else weight.contiguous()


class RoundedEncoder:
    """An `Encoder` that rounds to nearest; scales of inputs are those that another one measured."""

    def __init__(self, measured: Encoder) -> None:
        self._measured = measured

    def encode(self, roles: tuple[str, ...], weights: tuple[Tensor, ...]) -> tuple[Packed, ...]:
        """ModelOpt's bits."""
        tensor_scale = tensor_scale_of(max(map(largest, weights)))
        measured = self._measured.encode(roles, weights)
        answers = []
        for weight, other in zip(weights, measured, strict=True):
            codes, scales = encode(weight, tensor_scale)
            answers.append(replace(other, codes=codes, scales=scales, tensor_scale=tensor_scale))
        return tuple(answers)
