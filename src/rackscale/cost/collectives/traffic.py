"""What one rank sends in a phase, and over which links."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rackscale.cost.collectives.destinations import destinations
from rackscale.cost.collectives.exchange import Exchange
from rackscale.cost.collectives.links import Links
from rackscale.cost.collectives.protocols import Family
from rackscale.cost.collectives.wire import bytes_per_element

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Traffic:
    """[R] each, of the slowest rank. copied_bytes: written to other ranks, near or far; network_bytes: of
    them, what leaves the domain. spans: whether any does."""

    tokens: Array
    ranks: Array
    spans: NDArray[np.bool_]
    copied_bytes: Array
    network_bytes: Array
    fabric_bytes_per_s: Array
    network_bytes_per_s: Array


def traffic(exchange: Exchange, links: Links, family: Family, phase: str) -> Traffic:
    """Of one phase. What a rank keeps to itself crosses no link. Raises SpecError for an unknown format."""
    ranks = np.asarray(exchange.ranks, dtype=np.float64)
    domains = np.ceil(ranks / links.domain)
    tokens = np.asarray(exchange.tokens_per_rank * np.asarray(exchange.skew), dtype=np.float64)
    payload = tokens * exchange.hidden * bytes_per_element(wire_format(exchange, family, phase))
    if phase == "prepare":
        payload = payload * 0  # counts and offsets only: in its time per token
    if family.once_per_rank:
        copies = destinations(exchange, ranks)
        leaving = destinations(exchange, domains) * (1 - 1 / domains)
    else:
        copies = np.asarray(exchange.top_k, dtype=np.float64)
        leaving = copies * (1 - np.minimum(links.domain, ranks) / ranks)
    fields = np.broadcast_arrays(
        tokens,
        ranks,
        domains > 1,
        payload * copies * (1 - 1 / ranks),
        payload * leaving,
        np.asarray(links.fabric_bytes_per_s, dtype=np.float64),
        np.asarray(links.network_bytes_per_s, dtype=np.float64),
    )
    return Traffic(**dict(zip(Traffic.__dataclass_fields__, fields, strict=True)))


def wire_format(exchange: Exchange, family: Family, phase: str) -> str:
    """Of what a phase sends."""
    if phase == "dispatch":
        return exchange.dispatch
    if phase == "prepare" or family.combine_is_bf16:
        return "bf16"
    return exchange.combine
