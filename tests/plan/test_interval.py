"""Error bars hold what they say."""

import numpy as np
import pytest

from rackscale.plan.interval import Noise, fitted_noise, interval, noise_of
from rackscale.plan.metrics import METRICS


def test_both_kinds_of_doubt_add_in_squares():
    draws = np.array([[1.0], [-1.0]])
    low, high = interval(np.array([0.0]), draws, Noise(low=0.0, high=1.2))
    assert low == pytest.approx(-1.645)
    assert high == pytest.approx(np.hypot(1.2, 1.645))


def test_nine_rows_of_ten_lie_inside():
    rng = np.random.default_rng(0)
    truth, best = rng.normal(0, 0.2, 20_000), np.zeros(20_000)
    draws = rng.normal(0, 0.05, (40, 20_000))
    low, high = interval(best, draws, noise_of(truth, best, draws))
    assert ((low <= truth) & (truth <= high)).mean() == pytest.approx(0.9, abs=0.01)


def test_the_fit_has_noise_for_each_regime_and_metric():
    table = fitted_noise()
    for regime in ("one node", "several nodes", "new system"):
        for metric in METRICS:
            noise = table[regime, metric]
            assert 0 < noise.low < 3
            assert 0 < noise.high < 3
    assert "gb200" in table.systems
