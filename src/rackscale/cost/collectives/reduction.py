"""All-reduce, all-gather and reduce-scatter, as NCCL does them."""

from collections.abc import Mapping
from functools import cache

import numpy as np
from numpy.typing import NDArray

from rackscale.cost.collectives.coefficients import fitted_file
from rackscale.cost.collectives.links import Links
from rackscale.cost.estimate import Estimate
from rackscale.cost.priors import GENERATIONS

Array = NDArray[np.float64]


def all_gather(size_bytes: Array | float, ranks: Array | float, links: Links) -> Estimate:
    """Every rank gets the parts of all. size_bytes: of the whole. Nothing for one rank.

    Beyond a domain, each rank first gathers its parts from its peers in other domains, then all in a domain
    tell each other.
    """
    return _reduction(size_bytes, ranks, links, "all_gather", 1.0)


def reduce_scatter(size_bytes: Array | float, ranks: Array | float, links: Links) -> Estimate:
    """Every rank gets its part of the sum: an all-gather in the other direction. size_bytes: of the whole."""
    return _reduction(size_bytes, ranks, links, "all_gather", 1.0)


def all_reduce(size_bytes: Array | float, ranks: Array | float, links: Links) -> Estimate:
    """Every rank gets the sum of all: twice the bytes of an all-gather, at the speed that switches which add
    give. size_bytes: of one rank's. Nothing for one rank."""
    return _reduction(size_bytes, ranks, links, "all_reduce", 2.0)


def _reduction(
    size_bytes: Array | float, ranks: Array | float, links: Links, kind: str, times: float
) -> Estimate:
    width = np.asarray(ranks, dtype=np.float64)
    domains = np.ceil(width / links.domain)
    inside = np.minimum(width, links.domain)
    moved = times * size_bytes * (inside - 1) / inside
    leaving = times * size_bytes / inside * (domains - 1) / domains
    values = {name: np.array(column)[links.generation] for name, column in _table().items()}
    network = fitted_file()["reduction"]["network"]
    seconds = (
        values[f"{kind}_latency_s"]
        + moved / (links.fabric_bytes_per_s * values[f"{kind}_share"])
        + network["latency_s"] * np.log2(domains)
        + leaving / (links.network_bytes_per_s * network["share"])
    )
    several = width > 1
    return Estimate(
        seconds=np.where(several, seconds, 0.0), bytes_link=np.where(several, moved + leaving, 0.0)
    )


@cache
def _table() -> Mapping[str, list[float]]:
    """By quantity: one value for each generation, and last their geometric mean for the others."""
    table = fitted_file()["reduction"]
    names = table[GENERATIONS[0]].keys()
    columns = {name: [table[generation][name] for generation in GENERATIONS] for name in names}
    return {name: [*values, float(np.exp(np.mean(np.log(values))))] for name, values in columns.items()}
