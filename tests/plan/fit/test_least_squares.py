"""The solver, against scipy's and by hand."""

import numpy as np
import pytest
from scipy.optimize import least_squares

from rackscale.plan.fit.least_squares import soft, solve


def curve(logs):
    """Residuals [K, N] of a decaying exponential with an outlier."""
    times = np.linspace(0, 4, 30)
    seen = 3.0 * np.exp(-0.7 * times) + 0.1
    seen[7] += 5.0
    model = logs[:, [0]] * np.exp(-logs[:, [1]] * times) + logs[:, [2]]
    return soft(model - seen, 0.05)


def test_it_finds_what_scipy_finds():
    best, precision = solve(curve, np.array([1.0, 1.0, 0.0]), iterations=200)
    other = least_squares(lambda x: curve(x[None])[0], [1.0, 1.0, 0.0])
    assert best == pytest.approx(other.x, rel=1e-2)
    assert np.linalg.eigvalsh(precision).min() > 0


def test_an_outlier_counts_little():
    best, _ = solve(curve, np.array([1.0, 1.0, 0.0]), iterations=200)
    assert best == pytest.approx([3.0, 0.7, 0.1], rel=0.05, abs=0.02)


def test_it_stays_where_nothing_is_better():
    best, _ = solve(lambda x: x - 2.0, np.array([2.0, 2.0]))
    assert best.tolist() == [2.0, 2.0]
