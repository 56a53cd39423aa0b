"""How far measured curves lie from predicted ones at the same speed for users.

A comparison asks for a throughput at an interactivity, not at a concurrency. So curves are held against each
other: of each system, precision and length in the rows of the fit, the best measured throughput by
interactivity against the best predicted one of the same configurations.
"""

from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rackscale.plan.beliefs import Beliefs
from rackscale.plan.inferencex import Rows, read_rows
from rackscale.plan.interval import Noise
from rackscale.plan.search.frontier import staircase
from rackscale.plan.validate import predict

Array = NDArray[np.float64]

LEVELS = np.array([15.0, 20, 25, 30, 36.3, 45, 60, 75, 100, 150])  # tokens per second and user
LEAST_POINTS = 3  # of a measured curve
CURVE = ("hardware", "precision", "isl", "osl", "spec_method", "disagg")  # columns that tell curves apart
RATE, TPOT = "tokens_per_s_per_gpu", "tpot"


@cache
def level_noise(beliefs: Beliefs) -> Mapping[str, Noise]:
    """By "one node" and "several nodes": what one of twenty curves exceeds on each side, in logarithms.

    The fit has seen these rows. So the noise is widened by as much as that of rows that it had not seen,
    which the beliefs have, is wider than that of the same rows when it had.
    """
    with resources.as_file(resources.files("rackscale.plan") / "data" / "inferencex_dsr1.csv") as path:
        rows = read_rows(Path(path))
    predicted = predict(rows, beliefs.best, beliefs.best).value
    several = np.char.lower(rows.column("is_multinode")) == "true"
    found = {}
    for regime, chosen in (("one node", ~several), ("several nodes", several)):
        deviations = np.concatenate([_of_curve(rows, predicted, one & chosen) for one in _curves(rows)])
        seen = _ends(np.log(rows.truth[RATE][chosen] / predicted[RATE][chosen]))
        unseen = beliefs.noise[regime, RATE]
        wider = max((unseen.low + unseen.high) / (seen.low + seen.high), 1.0)
        ends = _ends(deviations)
        found[regime] = Noise(low=wider * ends.low, high=wider * ends.high)
    return found


def _curves(rows: Rows) -> list[NDArray[np.bool_]]:
    names = np.array(["|".join(row.get(name, "") for name in CURVE) for row in rows.rows])
    return [names == name for name in np.unique(names)]


def _of_curve(rows: Rows, predicted: Mapping[str, Array], chosen: NDArray[np.bool_]) -> Array:
    """Measured over predicted, in logarithms, at the levels that both curves have."""
    measured = _best(rows.truth[TPOT][chosen], rows.truth[RATE][chosen])
    expected = _best(predicted[TPOT][chosen], predicted[RATE][chosen])
    if len(measured[0]) < LEAST_POINTS or len(expected[0]) < LEAST_POINTS:
        return np.zeros(0)
    slowest = max(measured[0][0], expected[0][0])
    fastest = min(measured[0][-1], expected[0][-1])
    levels = -np.log(LEVELS)
    levels = levels[(levels >= slowest) & (levels <= fastest)]
    return np.asarray(np.interp(levels, *measured) - np.interp(levels, *expected))


def _best(tpot_s: Array, rate: Array) -> tuple[Array, Array]:
    """Logarithms of TPOT, rising, and of the throughput, of what nothing else beats in both."""
    kept = staircase(tpot_s, rate)
    return np.log(tpot_s[kept]), np.log(rate[kept])


def _ends(deviations: Sequence[float] | Array) -> Noise:
    low, high = np.quantile(deviations, (0.05, 0.95))
    return Noise(low=float(max(-low, 0.0)), high=float(max(high, 0.0)))
