"""The operations that are worth more than one implementation, behind one interface."""

from rackscale.runtime.kernels.choose import choose
from rackscale.runtime.kernels.interface import Kernels, Stack
from rackscale.runtime.kernels.weights import (
    ExpertWeights,
    GqaWeights,
    LayerWeights,
    Linear,
    MlaWeights,
    MlpWeights,
    MoeWeights,
)

__all__ = [
    "ExpertWeights",
    "GqaWeights",
    "Kernels",
    "LayerWeights",
    "Linear",
    "MlaWeights",
    "MlpWeights",
    "MoeWeights",
    "Stack",
    "choose",
]
