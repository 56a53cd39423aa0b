"""The operations that are worth more than one implementation, behind one interface."""

from rackscale.runtime.kernels.choose import choose
from rackscale.runtime.kernels.experts import ExpertWeights
from rackscale.runtime.kernels.interface import Kernels

__all__ = ["ExpertWeights", "Kernels", "choose"]
