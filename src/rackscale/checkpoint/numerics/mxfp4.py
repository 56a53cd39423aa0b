"""MXFP4 in numbers: blocks of 32 E2M1 codes and a power of two. One rule to decode; encoders differ.

Source: OCP Microscaling Formats 1.0; nvidia-modelopt 0.47 (MXFP4QTensor) and compressed-tensors 0.20
(MXFP4PackedCompressor), whose bits the two encoders give.
"""

import torch
from torch import Tensor

from rackscale.checkpoint.numerics import e2m1

BLOCK = 32
BIAS = 127


def decode(codes: Tensor, scales: Tensor) -> Tensor:
    """fp32 [..., K] of codes uint8 [..., K / 2] and biased exponents uint8 [..., K / 32]."""
    values = e2m1.values_of(codes)
    powers = scales.view(torch.float8_e8m0fnu).float()
    return (values.view(*scales.shape, BLOCK) * powers[..., None]).view(values.shape)


def encode(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Codes and exponents as ModelOpt has them: the power of two at which the largest magnitude is at most
    6, ties toward zero, and zeros with the sign set."""
    blocks = weight.float().unflatten(-1, (-1, BLOCK))
    exponents = torch.log2(blocks.abs().amax(-1) / e2m1.LARGEST).clamp(min=-BIAS).ceil()
    scaled = blocks / torch.exp2(exponents)[..., None]
    nibbles = e2m1.nearest_toward_zero(scaled.abs()) | (scaled <= 0).to(torch.uint8) << 3
    return e2m1.pack(nibbles.flatten(-2)), (exponents + BIAS).to(torch.uint8)


def encode_compressed_tensors(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Codes and exponents as compressed-tensors has them: the largest magnitude may be up to 7 powers and
    saturate at 6, ties to even. For bf16, fp16 and fp32 weights."""
    blocks = weight.unflatten(-1, (-1, BLOCK))
    mantissas, exponents = torch.frexp(blocks.abs().amax(-1).float())  # mantissas in [0.5, 1)
    exponents = exponents + (mantissas >= 7 / 8) - 3
    exponents = torch.where(mantissas == 0, -BIAS, exponents).clamp(-BIAS, BIAS + 1)
    scales = (exponents + BIAS).to(torch.uint8)
    scaled = blocks.float() / scales.view(torch.float8_e8m0fnu).float()[..., None]
    nibbles = e2m1.nearest_even(scaled.abs()) | (scaled < 0).to(torch.uint8) << 3
    return e2m1.pack(nibbles.flatten(-2)), scales
