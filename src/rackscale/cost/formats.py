"""Bits of weights and caches, and the arithmetic that they are multiplied in."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from rackscale.cost.chips import MATHS, Chips
from rackscale.cost.priors import GROUPS

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True)
class WeightFormat:
    """bytes: of a weight, scales included. math: what it is multiplied in."""

    bytes: float
    math: str


# Scales: an FP8 one for 16 values, a BF16 or an E8M0 one for 32; those of 128 x 128 blocks are nothing.
FORMATS = {
    "bf16": WeightFormat(bytes=2.0, math="bf16"),
    "fp8": WeightFormat(bytes=1.0, math="fp8"),
    "int4": WeightFormat(bytes=0.5 + 2 / 32, math="bf16"),
    "mxfp4": WeightFormat(bytes=0.5 + 1 / 32, math="fp4"),
    "nvfp4": WeightFormat(bytes=0.5 + 1 / 16, math="fp4"),
}
_KINDS = {"mxfp4": "nvfp4"}  # what a format's kernels are like, where they were not measured alone


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Precision:
    """Columns [R]. experts: formats of routed experts; mlp: of shared experts and dense feed-forward parts;
    linear: of attention's projections. kv_bytes: of an element of the cache."""

    expert_bytes: Array
    expert_math: NDArray[np.intp]
    expert_kind: NDArray[np.intp]
    mlp_bytes: Array
    mlp_math: NDArray[np.intp]
    linear_bytes: Array
    linear_math: NDArray[np.intp]
    kv_bytes: Array

    @classmethod
    def of(cls, experts: Sequence[str], mlp: Sequence[str], linear: Sequence[str], kv_bytes: Array) -> Self:
        """Columns of formats by their names in `FORMATS`."""
        kinds = GROUPS["format"]
        named = [_KINDS.get(name, name) for name in experts]
        return cls(
            expert_bytes=_bytes(experts),
            expert_math=_math(experts),
            expert_kind=np.array(
                [kinds.index(name) if name in kinds else -1 for name in named], dtype=np.intp
            ),
            mlp_bytes=_bytes(mlp),
            mlp_math=_math(mlp),
            linear_bytes=_bytes(linear),
            linear_math=_math(linear),
            kv_bytes=np.atleast_1d(kv_bytes).astype(np.float64),
        )


def tensor_rate(chips: Chips, math: NDArray[np.intp]) -> Array:
    """Dense FLOP/s [R] of the datasheet in each row's arithmetic."""
    rates: Array = np.choose(math, chips.tensor_flops)
    return rates


def _bytes(names: Sequence[str]) -> Array:
    return np.array([FORMATS[name].bytes for name in names])


def _math(names: Sequence[str]) -> NDArray[np.intp]:
    return np.array([MATHS.index(FORMATS[name].math) for name in names], dtype=np.intp)
