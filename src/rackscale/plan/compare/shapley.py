"""A ratio as a product of factors, one for each switch between two sides, that no order of them flatters.

The value of a set of switches is the logarithm of what is reached with those turned on. A switch's share is
what it adds when it is turned, in the mean over all orders (Shapley 1953); shares add up to the whole. A set
may have no value, because nothing reaches the level of service with it: then only orders that avoid it count
(Faigle and Kern 1992, values of games with restricted coalitions). On each order shares add up, so they
still do.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from rackscale.core import SpecError

Array = NDArray[np.float64]


def shapley(values: Array) -> Array:
    """[n, ...]: the share of each switch.

    values: [2^n, ...]; the bits of a set's number are its switches. NaN where a set has no value; the first
    of the further entries says so for all. Raises SpecError where every order meets such a set.
    """
    sets = len(values)
    switches = sets.bit_length() - 1
    assert sets == 1 << switches, f"{sets} is no power of two"
    known = np.isfinite(values.reshape(sets, -1)[:, 0]).tolist()
    weights = order_weights(known)
    shares = np.zeros((switches, *values.shape[1:]))
    for number, turned in weights:
        shares[turned] += weights[number, turned] * (values[number | 1 << turned] - values[number])
    return shares


def order_weights(known: Sequence[bool]) -> dict[tuple[int, int], float]:
    """By a set and a switch outside of it: the share of orders that turn the switch when exactly that set is
    on. known [2^n]: whether a set may be met. Raises SpecError where no order remains."""
    sets = len(known)
    switches = range(sets.bit_length() - 1)
    before, after = [0] * sets, [0] * sets
    before[0], after[-1] = int(known[0]), int(known[-1])
    for number in range(1, sets):
        if known[number]:
            before[number] = sum(before[number ^ 1 << one] for one in switches if number >> one & 1)
    for number in range(sets - 2, -1, -1):
        if known[number]:
            after[number] = sum(after[number | 1 << one] for one in switches if not number >> one & 1)
    orders = before[-1] if sets > 1 else int(known[0])
    if not orders:
        raise SpecError(
            "no order of the differences keeps the level of service", hint="ask for a lower interactivity"
        )
    return {
        (number, one): before[number] * after[number | 1 << one] / orders
        for number in range(sets)
        for one in switches
        if not number >> one & 1 and before[number] and after[number | 1 << one]
    }
