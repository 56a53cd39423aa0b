"""Error bars: what the parameters leave open, and what rows deviate beyond it."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

NORMAL_95 = 1.645  # of a normal distribution's deviations 5 % lie above


@dataclass(frozen=True, kw_only=True, slots=True)
class Noise:
    """Deviations of measured logarithms from the prediction, downwards and upwards, that one of twenty rows
    exceeds on each side."""

    low: float
    high: float


@dataclass(frozen=True, kw_only=True, slots=True)
class NoiseTable:
    """By regime and metric. Regimes: "one node", "several nodes", and "new system", whose chips or engine no
    row of the fit has. fitted_to: SHA-256 of the file of rows."""

    table: Mapping[str, Mapping[str, Noise]]
    systems: frozenset[str]
    fitted_to: str

    def __getitem__(self, key: tuple[str, str]) -> Noise:
        regime, metric = key
        return self.table[regime][metric]


def interval(best: Array, draws: Array, noise: Noise) -> tuple[Array, Array]:
    """Bounds [R], of logarithms: best [R], draws [K, R]. Both kinds of doubt are independent, so their
    squares add."""
    doubt = NORMAL_95 * draws.std(0)
    return best - np.hypot(noise.low, doubt), best + np.hypot(noise.high, doubt)


def noise_of(truth: Array, best: Array, draws: Array) -> Noise:
    """What makes `interval` hold nine rows of ten, of logarithms of rows that the fit had not."""
    deviation, doubt = truth - best, NORMAL_95 * draws.std(0)
    rest = np.sqrt(np.maximum(deviation**2 - doubt**2, 0.0))
    low = float(np.quantile(np.where(deviation < 0, rest, 0.0), 0.95))
    high = float(np.quantile(np.where(deviation > 0, rest, 0.0), 0.95))
    return Noise(low=low, high=high)


@cache
def fitted_noise() -> NoiseTable:
    """That of the fit, as `cost/fitted/serving.toml` has it."""
    path = resources.files("rackscale.cost") / "fitted" / "serving.toml"
    file = tomllib.loads(path.read_text(encoding="utf-8"))
    table = {
        regime: {metric: Noise(**bounds) for metric, bounds in metrics.items()}
        for regime, metrics in file["noise"].items()
    }
    report = file["report"]
    return NoiseTable(table=table, systems=frozenset(report["systems"]), fitted_to=report["sha256"])
