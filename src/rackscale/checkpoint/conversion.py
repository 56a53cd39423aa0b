"""One matrix to a packed format and back, without a checkpoint around it."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from rackscale.checkpoint.checkpoint import TORCH_DTYPES
from rackscale.checkpoint.codecs.codec import Codec
from rackscale.checkpoint.codecs.packed import Format
from rackscale.checkpoint.codecs.schemes import COMPRESSED_TENSORS, DEEPSEEK_FP8, MODELOPT
from rackscale.checkpoint.numerics import fp8, int4, mxfp4, nvfp4
from rackscale.checkpoint.quantizer.methods import search_shared
from rackscale.checkpoint.roles import Source
from rackscale.core import SpecError

Tensors = dict[str, Tensor]
DTYPE_NAMES = {dtype: name for name, dtype in TORCH_DTYPES.items()}


def quantize(weight: Tensor, format: str = "nvfp4", method: str = "rtn") -> Tensors:  # noqa: A002 (the word)
    """A matrix [N, K] in packed form, under the names that exports give its tensors.

    nvfp4: weight, weight_scale, weight_scale_2, ModelOpt's bits. nvfp4-compressed-tensors: weight_packed,
    weight_scale, weight_global_scale. int4-g32: weight_packed, weight_scale, weight_shape. fp8-128x128:
    weight, weight_scale_inv. mxfp4: blocks, scales, as in gpt-oss, ModelOpt's bits.
    mxfp4-compressed-tensors: weight_packed, weight_scale.
    method: rtn rounds to nearest; search (nvfp4 alone) tries scales for each block. Raises SpecError where a
    number is not finite, K is no whole number of blocks, or the format or method is unknown.
    """
    if method not in METHODS:
        raise SpecError(f"method {method!r} is unknown", hint=f"supported: {', '.join(METHODS)}")
    if weight.ndim != 2 or not weight.is_floating_point():
        raise SpecError(
            f"a tensor of shape {list(weight.shape)} in {weight.dtype}",
            hint="matrices of floats are quantised",
        )
    if not weight.isfinite().all():
        raise SpecError("the matrix has numbers that are not finite", hint="no format has room for them")
    if format not in ENCODERS:
        raise SpecError(f"format {format!r} is unknown", hint=f"supported: {', '.join(ENCODERS)}")
    if weight.shape[1] % (group := ENCODERS[format][0]):
        raise SpecError(
            f"a matrix of {weight.shape[1]} columns", hint=f"{format} needs a multiple of {group}"
        )
    return METHODS[method](weight, format)


def dequantize(tensors: Mapping[str, Tensor], format: str = "nvfp4") -> Tensor:  # noqa: A002 (the word)
    """fp32 [N, K] of what `quantize` gives for the format, or of an export's tensors without their prefix.

    Raises SpecError naming the tensor that is missing, of a wrong shape or dtype, or whose scales are
    negative or not finite.
    """
    if format not in DECODERS:
        raise SpecError(f"format {format!r} is unknown", hint=f"supported: {', '.join(DECODERS)}")
    if "blocks" in tensors and "scales" in tensors:
        tensors = {"weight_packed": tensors["blocks"].flatten(-2), "weight_scale": tensors["scales"]}
    codec, codes, codes_a_column = DECODERS[format]
    shape = tuple(_get(tensors, codes).shape) or (0,)
    source = Source(tensor="weight", shape=(*shape[:-1], shape[-1] * codes_a_column))
    parts = {}
    for part in codec.parts(source):
        name = part.tensor
        if part.optional and name not in tensors:
            continue
        tensor = parts[part.role] = _get(tensors, name)
        if tuple(tensor.shape) != part.shape and not (part.shape == () and tensor.numel() == 1):
            raise SpecError(
                f"{name!r} has shape {list(tensor.shape)}, and {codes!r} makes it {list(part.shape)}",
                hint="the two are not of one matrix",
            )
        if DTYPE_NAMES.get(tensor.dtype) not in part.dtypes:
            raise SpecError(
                f"{name!r} is {tensor.dtype}", hint=f"it must be {', '.join(sorted(part.dtypes))}"
            )
    return codec.decode(parts, source)


def _get(tensors: Mapping[str, Tensor], name: str) -> Tensor:
    tensor = tensors.get(name)
    if tensor is None:
        raise SpecError(f"there is no {name!r}", hint="every tensor of the matrix is needed")
    return tensor


def _round_to_nearest(weight: Tensor, form: str) -> Tensors:
    return ENCODERS[form][1](weight)


def _search(weight: Tensor, form: str) -> Tensors:
    if form != "nvfp4":
        raise SpecError(f"format {form!r} has no search", hint="nvfp4 has; the others are rounded (rtn)")
    scale, (encoded,) = search_shared([weight])
    scales = encoded.scales.view(torch.float8_e4m3fn)
    return {"weight": encoded.codes, "weight_scale": scales, "weight_scale_2": torch.tensor(scale)}


def _nvfp4(weight: Tensor) -> Tensors:
    codes, scales, scale = nvfp4.encode(weight)
    return {"weight": codes, "weight_scale": scales, "weight_scale_2": scale}


def _nvfp4_compressed_tensors(weight: Tensor) -> Tensors:
    codes, scales, scale = nvfp4.encode_compressed_tensors(weight)
    return {"weight_packed": codes, "weight_scale": scales, "weight_global_scale": scale}


def _int4(weight: Tensor) -> Tensors:
    codes, scales = int4.encode(weight)
    words = codes.view(torch.int32)
    return {"weight_packed": words, "weight_scale": scales, "weight_shape": torch.tensor(weight.shape)}


def _fp8(weight: Tensor) -> Tensors:
    rounded, scales = fp8.encode(weight)
    return {"weight": rounded, "weight_scale_inv": scales}


def _mxfp4(weight: Tensor) -> Tensors:
    codes, scales = mxfp4.encode(weight)
    return {"blocks": codes.unflatten(-1, (-1, mxfp4.BLOCK // 2)), "scales": scales}


def _mxfp4_compressed_tensors(weight: Tensor) -> Tensors:
    codes, scales = mxfp4.encode_compressed_tensors(weight)
    return {"weight_packed": codes, "weight_scale": scales}


ENCODERS: dict[str, tuple[int, Callable[[Tensor], Tensors]]] = {
    "nvfp4": (nvfp4.BLOCK, _nvfp4),
    "nvfp4-compressed-tensors": (nvfp4.BLOCK, _nvfp4_compressed_tensors),
    "int4-g32": (int4.GROUP, _int4),
    "fp8-128x128": (1, _fp8),
    "mxfp4": (mxfp4.BLOCK, _mxfp4),
    "mxfp4-compressed-tensors": (mxfp4.BLOCK, _mxfp4_compressed_tensors),
}
METHODS: dict[str, Callable[[Tensor, str], Tensors]] = {"rtn": _round_to_nearest, "search": _search}
DECODERS: dict[str, tuple[Codec, str, int]] = {
    "nvfp4": (MODELOPT, "weight", 2),
    "nvfp4-compressed-tensors": (COMPRESSED_TENSORS[Format.NVFP4], "weight_packed", 2),
    "int4-g32": (COMPRESSED_TENSORS[Format.INT4], "weight_packed", 8),
    "fp8-128x128": (DEEPSEEK_FP8, "weight", 1),
    "mxfp4": (COMPRESSED_TENSORS[Format.MXFP4], "weight_packed", 2),
    "mxfp4-compressed-tensors": (COMPRESSED_TENSORS[Format.MXFP4], "weight_packed", 2),
}
