"""The formats that torch encodes, by rounding to nearest as their reference implementations do."""

from torch import Tensor

from rackscale.checkpoint.codecs import Format
from rackscale.checkpoint.numerics import fp8, int4, mxfp4


def encode_reference(form: Format, weight_NK: Tensor) -> tuple[Tensor, Tensor]:
    """Codes and scales as `Packed` has them. Bands of 128 rows give their rows of the whole."""
    match form:
        case Format.INT4:
            return int4.encode(weight_NK)
        case Format.MXFP4:
            return mxfp4.encode_compressed_tensors(weight_NK)
        case Format.FP8:
            return fp8.encode(weight_NK)
        case Format.NVFP4:
            raise AssertionError("NVFP4 has encoders of its own")


def reference_squares(form: Format, weight_NK: Tensor, codes: Tensor, scales: Tensor) -> tuple[float, float]:
    """Sums over the matrix of squared errors and of squared weights."""
    decode = {Format.INT4: int4.decode, Format.MXFP4: mxfp4.decode, Format.FP8: fp8.decode}[form]
    weight = weight_NK.double()
    error = decode(codes, scales).double() - weight
    return float(error.square().sum()), float(weight.square().sum())
