"""Second moments of a linear layer's inputs, and the weights that suit inputs which carry errors.

Axes: E matrices that see inputs of their own (1, or experts), T tokens, N rows of a weight, K its columns.
"""

import torch
from torch import Tensor

from rackscale.checkpoint.quantizer.methods import damped


class Moments:
    """Sums over tokens: own [E, K, K] of x x^T, cross [E, K, K] of y x^T, where x is the input that the
    quantised model sees and y the one that the original sees in its place. largest: of all |x|."""

    def __init__(self, num_matrices: int, num_columns: int) -> None:
        self.own_EKK = torch.zeros(num_matrices, num_columns, num_columns)
        self.cross_EKK = torch.zeros_like(self.own_EKK)
        self.largest = 0.0

    def add(self, matrix: int, x_TK: Tensor, y_TK: Tensor, counts_T: Tensor | None = None) -> None:
        """Tokens that a matrix sees. counts: what the square of each one's error counts; None: 1."""
        if not len(x_TK):
            return
        self.largest = max(self.largest, float(x_TK.abs().max()))
        counted_TK = x_TK if counts_T is None else x_TK * counts_T[:, None]
        self.own_EKK[matrix].addmm_(counted_TK.mT, x_TK)
        self.cross_EKK[matrix].addmm_(y_TK.mT, counted_TK)

    def blend(self, other: "Moments", share: float) -> None:
        """Add a share of those of one matrix to each."""
        self.own_EKK += share * other.own_EKK
        self.cross_EKK += share * other.cross_EKK

    def suited(self, weight_ENK: Tensor) -> Tensor:
        """The weights that, over x, come closest to what the given ones do over y, before rounding.

        Source: the objective |W y - Q x|^2 of GPTAQ (arXiv 2504.02692), solved by least squares.
        """
        pull_ENK = weight_ENK @ (self.cross_EKK - self.own_EKK)
        change_EKN: Tensor = torch.linalg.solve(damped(self.own_EKK), pull_ENK.mT)
        return weight_ENK + change_EKN.mT
