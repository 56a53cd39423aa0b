"""All-to-all of a MoE layer: every token to the ranks of its experts, and their sums back."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from rackscale.cost.collectives.coefficients import Coefficients, fitted
from rackscale.cost.collectives.exchange import Exchange
from rackscale.cost.collectives.links import Links
from rackscale.cost.collectives.protocols import BEST, Protocol, protocol_of
from rackscale.cost.collectives.traffic import traffic, wire_format
from rackscale.cost.estimate import Estimate
from rackscale.cost.priors import GENERATIONS

Array = NDArray[np.float64]
BLACKWELL = GENERATIONS.index("blackwell")
BOX = 8  # chips


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Phases:
    """The steps of one exchange. Infinite seconds where the protocol cannot run."""

    prepare: Estimate
    dispatch: Estimate
    combine: Estimate

    @property
    def total(self) -> Estimate:
        """One after the other."""
        return self.prepare + self.dispatch + self.combine


def phases(
    exchange: Exchange,
    links: Links,
    protocol: str | Protocol,
    *,
    captured: bool = False,
    coefficients: Coefficients | None = None,
) -> Phases:
    """Each phase of an exchange by one protocol: a kernel that was measured, or a family (its mean).

    captured: launched by a graph, so that the host sets no floor. coefficients: others than the fitted.
    Raises SpecError for an unknown protocol or wire format.
    """
    chosen = protocol_of(protocol) if isinstance(protocol, str) else protocol
    values = fitted() if coefficients is None else coefficients
    return Phases(
        **{
            phase: _phase(exchange, links, chosen, phase, captured=captured, coefficients=values)
            for phase in ("prepare", "dispatch", "combine")
        }
    )


def all_to_all(
    exchange: Exchange,
    links: Links,
    protocol: str = "best",
    *,
    captured: bool = False,
    coefficients: Coefficients | None = None,
) -> Estimate:
    """Prepare, dispatch and combine. Nothing for one rank.

    protocol: see `phases`; "best" is, for each entry, the fastest of `BEST` that runs there, as engines
    choose by themselves.
    """
    if protocol != "best":
        return phases(exchange, links, protocol, captured=captured, coefficients=coefficients).total
    ranks = np.asarray(exchange.ranks, dtype=np.float64)
    columns = []
    for name in BEST:
        chosen = protocol_of(name)
        found = phases(exchange, links, chosen, captured=captured, coefficients=coefficients).total
        offered = _is_offered(links, chosen, ranks)
        columns += [np.where(offered, found.seconds, np.inf), found.bytes_link]
    spread = np.broadcast_arrays(*columns)
    seconds, moved = np.stack(spread[::2]), np.stack(spread[1::2])
    fastest = seconds.argmin(0)[None]
    return Estimate(
        seconds=np.take_along_axis(seconds, fastest, 0)[0],
        bytes_link=np.take_along_axis(moved, fastest, 0)[0],
    )


def _phase(
    exchange: Exchange,
    links: Links,
    protocol: Protocol,
    phase: str,
    *,
    captured: bool,
    coefficients: Coefficients,
) -> Estimate:
    family = protocol.traits
    sent = traffic(exchange, links, family, phase)
    if phase not in family.phases:
        return Estimate(seconds=np.zeros_like(sent.ranks), bytes_link=np.zeros_like(sent.ranks))
    terms = coefficients.terms(protocol, phase, wire_format(exchange, family, phase), links.generation)
    if captured:
        terms = replace(terms, launch_s=np.zeros_like(terms.launch_s))
    runs = family.leaves_domain | ~sent.spans
    seconds = np.where(runs, terms.seconds(sent), np.inf)
    return Estimate(seconds=seconds, bytes_link=sent.copied_bytes)


def _is_offered(links: Links, protocol: Protocol, ranks: Array) -> NDArray[np.bool_]:
    """Kernels that write to each other's memory were measured on Blackwell; of chips that were not measured,
    a rack of one domain is taken to have them, a box is not."""
    generation = np.asarray(links.generation)
    maps_memory = (generation == BLACKWELL) | ((generation < 0) & (np.asarray(links.domain) > BOX))
    return np.asarray(protocol.traits.leaves_domain | (ranks <= 1) | maps_memory)
