"""The operations that are worth more than one implementation, behind one interface."""

from rackscale.runtime.kernels.choose import choose
from rackscale.runtime.kernels.interface import Decoder, Kernels
from rackscale.runtime.kernels.weights import (
    ExpertWeights,
    GqaWeights,
    LayerWeights,
    Linear,
    MlaWeights,
    MlpWeights,
    ModelWeights,
    MoeWeights,
)

__all__ = [
    "Decoder",
    "ExpertWeights",
    "GqaWeights",
    "Kernels",
    "LayerWeights",
    "Linear",
    "MlaWeights",
    "MlpWeights",
    "ModelWeights",
    "MoeWeights",
    "choose",
]
