"""Power laws of a curve, one for each stretch of it, and the knees between them.

In logarithms a power law is a straight line. The curve is taken as straight lines that join at knees, which
lie at points of it; as many as an information criterion finds worth their parameters (Schwarz 1978), where
a knee is twice as dear since it is the best of many (Chen and Chen 2008). Intervals are of a bootstrap that
draws deviations from the lines again (Efron 1979), wider by what Student's t is for few points.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise

import numpy as np
from numpy.typing import NDArray

from rackscale.plan.interval import NORMAL_95

Array = NDArray[np.float64]

MOST_KNEES = 2
POINTS = 3  # of a stretch at least, its ends included
FLOOR = 0.01  # deviations below are steps of whole ranks and requests, which no knee should explain
KNEE = (
    4  # times the logarithm of the points: found to leave one knee of twenty that is none, at 7 to 13 points
)
DRAWS = 200
SEED = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Regime:
    """From one value of what is varied to another: what is reached goes as its power. low, high: hold the
    exponent nine times of ten."""

    first: float
    last: float
    exponent: float
    low: float
    high: float


def regimes(x: Sequence[float], y: Sequence[float]) -> tuple[Regime, ...]:
    """Of values above 0, x rising. No regime where there are fewer than `POINTS`."""
    across, along = np.log(np.asarray(x)), np.log(np.asarray(y))
    if len(across) < POINTS:
        return ()
    knees = min(_splits(len(across)), key=lambda knees: _criterion(across, along, knees))
    bases = [_basis(across, other) for other in _splits(len(across)) if len(other) == len(knees)]
    basis = _basis(across, knees)
    slopes, deviations = _fitted(basis, along)
    line = basis @ slopes
    random = np.random.default_rng(SEED)  # noqa: TID251 (a bootstrap draws by a fixed seed)
    # A fit takes as much of the deviations with it as it has parameters.
    free = max(len(along) - basis.shape[1] - len(knees), 1)
    scale = _few(free) * np.sqrt(len(along) / free)
    drawn = line + scale * random.choice(deviations, (DRAWS, len(along)))
    found = np.array([_best(bases, one) for one in drawn])
    low, high = np.quantile(np.cumsum(found[:, 1:], 1), (0.05, 0.95), axis=0)
    ends = [0, *knees, len(across) - 1]
    return tuple(
        Regime(
            first=float(x[start]),
            last=float(x[end]),
            exponent=float(exponent),
            low=float(min(below, exponent)),
            high=float(max(above, exponent)),
        )
        for start, end, exponent, below, above in zip(
            ends, ends[1:], np.cumsum(slopes[1:]), low, high, strict=False
        )
    )


def _splits(points: int) -> Iterator[tuple[int, ...]]:
    """Places of knees that leave each stretch enough points."""
    for number in range(MOST_KNEES + 1):
        for knees in combinations(range(1, points - 1), number):
            ends = (0, *knees, points - 1)
            if all(end - start >= POINTS - 1 for start, end in pairwise(ends)):
                yield knees


def _basis(across: Array, knees: Sequence[int]) -> Array:
    """[n, 2 + knees]: a constant, the first slope, and what each knee adds to it."""
    hinges = [np.maximum(across - across[knee], 0.0) for knee in knees]
    return np.stack([np.ones_like(across), across, *hinges], 1)


def _fitted(basis: Array, along: Array) -> tuple[Array, Array]:
    slopes = np.asarray(np.linalg.lstsq(basis, along, rcond=None)[0], dtype=np.float64)
    return slopes, along - basis @ slopes


def _criterion(across: Array, along: Array, knees: Sequence[int]) -> float:
    """A knee has two parameters, its place and its slope."""
    _, deviations = _fitted(_basis(across, knees), along)
    variance = float((deviations**2).mean()) + FLOOR**2
    return len(along) * float(np.log(variance)) + KNEE * len(knees) * float(np.log(len(along)))


def _best(bases: Sequence[Array], along: Array) -> Array:
    """The slopes of the places of knees that fit best."""
    fits = [_fitted(basis, along) for basis in bases]
    return min(fits, key=lambda fit: float((fit[1] ** 2).sum()))[0]


def _few(free: int) -> float:
    """Student's t over the normal distribution's, where 5 % lie above (Abramowitz and Stegun 26.7.5)."""
    z = NORMAL_95
    return 1 + (z**2 + 1) / (4 * free) + (5 * z**4 + 16 * z**2 + 3) / (96 * free**2)
