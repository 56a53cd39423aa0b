"""How many ranks, or domains, hold the experts of one token."""

import numpy as np
from numpy.typing import NDArray

from rackscale.cost.collectives.exchange import Exchange

Array = NDArray[np.float64]


def destinations(exchange: Exchange, places: Array | float) -> Array:
    """Expected number of distinct places, of so many that share the experts evenly, to which a token goes.

    Independent choices among n places hit n (1 - (1 - 1/n)^k) of them. Groups of experts leave fewer places
    to choose from: where a place holds several groups, it is left out if none of them is chosen.
    """
    share = np.asarray(exchange.groups_per_token, dtype=np.float64) / exchange.groups
    groups_of_place = np.maximum(exchange.groups / np.asarray(places, dtype=np.float64), 1.0)
    reachable = np.maximum(places * (1 - (1 - share) ** groups_of_place), 1.0)
    chosen = reachable * (1 - (1 - 1 / reachable) ** exchange.top_k)
    return np.where(exchange.balanced, np.minimum(places, exchange.top_k), chosen)
