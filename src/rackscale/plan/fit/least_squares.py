"""Robust, regularised least squares, all derivatives in one pass of the model."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

STEP = 1e-4
MAX_MOVE = 1.0
TRIES = 6
ENOUGH = 1e-4  # of the cost, by which a step must improve it


def soft(residual: Array, scale: float) -> Array:
    """Residuals over their scale, whose square grows only linearly far out (pseudo-Huber)."""
    over = residual / scale
    found: Array = np.sign(over) * np.sqrt(2 * (np.sqrt(1 + over * over) - 1))
    return found


def softer(residual: Array, scale: float) -> Array:
    """The same with a square that grows as a logarithm far out (Cauchy): for what fails in its own ways."""
    over = residual / scale
    found: Array = np.sign(over) * np.sqrt(np.log1p(over * over))
    return found


def solve(residuals: Callable[[Array], Array], start: Array, iterations: int = 25) -> tuple[Array, Array]:
    """The parameters [P] that make the sum of squares least, and the matrix of second derivatives [P, P]
    there (Levenberg-Marquardt). residuals: of parameters [K, P], [K, N]."""
    best, damping = start.copy(), 1e-2
    current = residuals(best[None])[0]
    cost = float(current @ current)
    normal = np.eye(len(best))
    for _ in range(iterations):
        slopes = (residuals(best + STEP * np.eye(len(best))) - current).T / STEP
        normal, gradient = slopes.T @ slopes, slopes.T @ current
        for _ in range(TRIES):
            move = np.linalg.solve(normal + damping * np.diag(np.diag(normal)), -gradient)
            trial = best + np.clip(move, -MAX_MOVE, MAX_MOVE)
            found = residuals(trial[None])[0]
            if (lower := float(found @ found)) < cost:
                break
            damping *= 4
        else:
            break
        finished = cost - lower < ENOUGH * cost
        best, current, cost, damping = trial, found, lower, max(damping / 5, 1e-6)
        if finished:
            break
    return best, normal
