"""How uneven experts are: how many of them a step touches, and how much more the slowest rank has to do.

The chance of an expert falls as a power of its rank among all (Zipf); exponent 0 is uniform. Random tokens
through a trained router, as benchmarks send them, lie near 0.4 to 0.8; the fit says where.
"""

from functools import cache

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

MAX_SKEW = 1.5
_SKEWS = np.linspace(0.0, MAX_SKEW, 16)
_LOG_TOKENS = np.linspace(0.0, np.log(1e6), 57)


def chances(experts: int, top_k: int, skew: float) -> Array:
    """[E]: the chance that a token goes to each expert, of `top_k` different ones. Sums to top_k.

    Those that would be above 1 are 1, and the others share what is left.
    """
    weights: Array = np.arange(1, experts + 1, dtype=np.float64) ** -skew
    share: Array = top_k * weights / weights.sum()
    while (share > 1 + 1e-12).any():
        full = share >= 1
        share = np.where(full, 1.0, (top_k - full.sum()) * weights / weights[~full].sum())
    return share


def touched(tokens: Array, experts: int, top_k: int, skew: Array) -> Array:
    """Experts that at least one of the tokens goes to, in the mean. From a table in the logarithm of tokens
    and the exponent, both linear in between; exact to 1 %."""
    table = _touched_table(experts, top_k)
    at_skew = np.clip(skew, 0.0, MAX_SKEW) / MAX_SKEW * (len(_SKEWS) - 1)
    at_tokens = np.clip(np.log(np.maximum(tokens, 1.0)) / _LOG_TOKENS[-1], 0.0, 1.0) * (len(_LOG_TOKENS) - 1)
    found: Array = np.exp(_between(np.log(table), at_skew, at_tokens)) * np.minimum(tokens, 1.0)
    return found


def slowest(tokens: Array, ranks: Array, shape: tuple[int, int], skew: Array, balance: Array) -> Array:
    """Work of the slowest rank over the mean's, at least 1.

    Two parts. Lasting: ranks hold experts of different popularity, `balance` of which is evened out (0:
    experts lie as numbered, 1: a perfect placement). Passing: the deviation of a sum of chance events. The
    largest of n normal deviations is about sqrt(2 ln n). shape: experts, top_k.
    """
    experts, top_k = shape
    width = np.maximum(ranks, 1.0)
    lasting = (1 - balance) * _spread(experts, top_k, skew) * np.sqrt(width / experts)
    passing = np.sqrt(width / np.maximum(tokens * top_k, 1.0))
    largest: Array = np.sqrt(2 * np.log(width)) * np.hypot(lasting, np.minimum(passing, 1.0))
    return 1 + largest


def _spread(experts: int, top_k: int, skew: Array) -> Array:
    """Deviation of experts' loads over their mean, as a table in the exponent."""
    return np.interp(skew, _SKEWS, _spread_table(experts, top_k))


@cache
def _spread_table(experts: int, top_k: int) -> Array:
    loads = [chances(experts, top_k, skew) for skew in _SKEWS]
    return np.array([load.std() / load.mean() for load in loads])


@cache
def _touched_table(experts: int, top_k: int) -> Array:
    tokens = np.exp(_LOG_TOKENS)[:, None]
    rows = [(1 - (1 - np.minimum(chances(experts, top_k, skew), 1.0)) ** tokens).sum(1) for skew in _SKEWS]
    return np.array(rows)


def _between(table: Array, at_row: Array, at_column: Array) -> Array:
    rows, columns = table.shape
    row = np.minimum(at_row.astype(np.intp), rows - 2)
    column = np.minimum(at_column.astype(np.intp), columns - 2)
    down, right = at_row - row, at_column - column
    upper = table[row, column] * (1 - right) + table[row, column + 1] * right
    lower = table[row + 1, column] * (1 - right) + table[row + 1, column + 1] * right
    found: Array = upper * (1 - down) + lower * down
    return found
