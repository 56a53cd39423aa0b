"""KV from one pool's ranks to another's."""

import numpy as np
from numpy.typing import NDArray

from rackscale.cost.collectives.coefficients import fitted_file
from rackscale.cost.collectives.links import Links
from rackscale.cost.estimate import Estimate

Array = NDArray[np.float64]


def kv_transfer(
    size_bytes: Array | float,
    descriptors: Array | float,
    links: Links,
    *,
    inside_domain: NDArray[np.bool_] | bool,
) -> Estimate:
    """What one rank hands over. descriptors: pieces that lie apart, each posted by itself before it moves.

    Posting, then moving: at a share of the link, and no faster than copies of pieces follow each other.
    """
    table = fitted_file()["kv_transfer"]
    values = {
        name: np.where(inside_domain, table["fabric"][name], table["network"][name])
        for name in table["fabric"]
    }
    rate = np.where(inside_domain, links.fabric_bytes_per_s, links.network_bytes_per_s)
    moving = np.maximum(size_bytes / (rate * values["share"]), descriptors * values["piece_s"])
    seconds = values["latency_s"] + descriptors * values["post_s"] + moving
    something = np.asarray(size_bytes, dtype=np.float64) > 0
    return Estimate(
        seconds=np.where(something, seconds, 0.0), bytes_link=np.where(something, size_bytes, 0.0)
    )
