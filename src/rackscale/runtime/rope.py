"""Rotary embeddings: the table of cosines and sines that `Kernels.rotate` takes.

Interleaved checkpoints (DeepSeek) have their rows put in halves at load (`halves`), so that there is one
rotation. Sources: RoFormer (arXiv 2104.09864), YaRN (arXiv 2309.00071), and for the variants the functions
of transformers' modeling_rope_utils.py.
"""

import math

import torch
from torch import Tensor

from rackscale.specs import LinearScaling, Llama3Scaling, RopeSpec, YarnScaling


class Rope:
    """cos and sin [positions, dim / 2], fp32."""

    def __init__(self, spec: RopeSpec, max_positions: int, device: torch.device) -> None:
        frequencies, factor = _frequencies(spec)
        angles = torch.outer(torch.arange(max_positions, dtype=torch.float32), frequencies)
        self.cos = (angles.cos() * factor).to(device)
        self.sin = (angles.sin() * factor).to(device)


def halves(rows: Tensor) -> Tensor:
    """Rows [..., dim, in] of neighbouring pairs, put so that a pair is half the rows apart."""
    return torch.cat((rows[..., 0::2, :], rows[..., 1::2, :]), -2)


def _frequencies(spec: RopeSpec) -> tuple[Tensor, float]:
    """Radians a position, [dim / 2], and what multiplies cos and sin."""
    exponents = torch.arange(0, spec.dim, 2, dtype=torch.float32) / spec.dim
    plain = 1.0 / spec.theta**exponents
    match spec.scaling:
        case None:
            return plain, 1.0
        case LinearScaling(factor=factor):
            return plain / factor, 1.0
        case Llama3Scaling() as scaling:
            return _llama3(plain, scaling), 1.0
        case YarnScaling() as scaling:
            return _yarn(plain, spec, scaling), scaling.attention_factor


def _llama3(plain: Tensor, scaling: Llama3Scaling) -> Tensor:
    turns = scaling.original_max_positions * plain / (2 * math.pi)
    low, high = scaling.low_freq_factor, scaling.high_freq_factor
    kept = ((turns - low) / (high - low)).clamp(0, 1)
    return plain / scaling.factor * (1 - kept) + plain * kept


def _yarn(plain: Tensor, spec: RopeSpec, scaling: YarnScaling) -> Tensor:
    def index_of(turns: float) -> float:
        wave = scaling.original_max_positions / (turns * 2 * math.pi)
        return spec.dim * math.log(wave) / (2 * math.log(spec.theta))

    low, high = index_of(scaling.beta_fast), index_of(scaling.beta_slow)
    if scaling.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, spec.dim - 1)
    if low == high:
        high += 0.001  # no division by zero
    ramp = ((torch.arange(spec.dim // 2, dtype=torch.float32) - low) / (high - low)).clamp(0, 1)
    return plain / scaling.factor * ramp + plain * (1 - ramp)
