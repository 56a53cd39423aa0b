"""What each parameter of an exchange is, and what is believed of it before a fit.

A parameter is one of a family's phase, `family.phase.quantity`, times factors for the kernel `[kernel]`, the
kernel on a generation of chips `[kernel,generation]`, and the wire format `[format]`, `[kernel,format]`.
A factor that was never fitted is 1. All are positive, and kept as logarithms.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields

from rackscale.cost.collectives.protocols import FAMILIES
from rackscale.cost.collectives.terms import Terms

US = 1e-6
NS = 1e-9
FACTS = "facts/hardware.md, collectives"
DEEPEP = "https://github.com/deepseek-ai/DeepEP/blob/main/docs/legacy.md"
GUESS = "no published figure: wide"


@dataclass(frozen=True, kw_only=True, slots=True)
class Prior:
    """value: the centre. spread: the standard deviation of its logarithm."""

    value: float
    spread: float
    what: str
    source: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Between:
    """Standard deviations of the logarithms of factors. 0: the quantity has no such factor."""

    kernel: float = 0.0
    generation: float = 0.0
    format: float = 0.0


BETWEEN = {
    "latency_s": Between(kernel=0.4, generation=0.3, format=0.15),
    "doubling_s": Between(kernel=0.3),
    "launch_s": Between(kernel=1.0, generation=0.2, format=0.1),
    "network_latency_s": Between(kernel=0.3),
    "token_s": Between(kernel=0.7, generation=0.7, format=0.7),
    "link_share": Between(kernel=0.15, generation=0.15),
    "network_share": Between(kernel=0.05),
    "crowding": Between(),
}
QUANTITIES = tuple(field.name for field in fields(Terms))
assert set(QUANTITIES) == set(BETWEEN), "each quantity has its spreads"


def _latency(us: float, source: str = FACTS) -> Prior:
    return Prior(value=us * US, spread=0.3, what="at one rank and no bytes", source=source)


def _doubling(us: float) -> Prior:
    return Prior(value=us * US, spread=0.5, what="latency for each doubling of ranks", source=GUESS)


def _token(ns: float) -> Prior:
    return Prior(value=ns * NS, spread=1.0, what="per token: copies in and out, conversion", source=GUESS)


def _link(share: float, source: str) -> Prior:
    return Prior(
        value=share, spread=0.15, what="share of the fabric's bytes/s reached by 8 ranks", source=source
    )


CROWDING = Prior(
    value=0.05,
    spread=0.5,
    what="copying takes (ranks / 8)^crowding as long beyond 8 ranks",
    source=GUESS,
)
NETWORK = {
    "network_share": Prior(
        value=0.92,
        spread=0.04,
        what="share of the network's bytes/s that is reached",
        source=DEEPEP + ": 43 to 58 of 50 GB/s",
    ),
}
TRIP = Prior(value=20 * US, spread=0.5, what="more, beyond a domain", source=DEEPEP)
TRIPS = Prior(value=40 * US, spread=0.5, what="more, beyond a domain: counts, then tokens", source=DEEPEP)
LAUNCH = Prior(value=40 * US, spread=0.5, what="floor, as the host launches and waits", source=GUESS)
ONE_SIDED = FACTS + ": 73 % of the link"


def _priors() -> dict[str, Prior]:
    nvlink = {"link_share": _link(0.73, ONE_SIDED), "crowding": CROWDING, "doubling_s": _doubling(2)}
    deepep = {**NETWORK, "launch_s": LAUNCH, "crowding": CROWDING, "doubling_s": _doubling(1)}
    deepep["link_share"] = _link(0.6, DEEPEP)
    ll = {**deepep, "network_latency_s": TRIP, "token_s": _token(10)}
    ht = {**deepep, "network_latency_s": TRIPS, "token_s": _token(20)}
    phases = {
        "one_sided.dispatch": {**nvlink, "latency_s": _latency(12), "token_s": _token(4)},
        "one_sided.combine": {**nvlink, "latency_s": _latency(15), "token_s": _token(4)},
        "two_sided.prepare": {"latency_s": _latency(11), "doubling_s": _doubling(1), "token_s": _token(7)},
        "two_sided.dispatch": {**nvlink, "latency_s": _latency(10), "token_s": _token(30)},
        "two_sided.combine": {**nvlink, "latency_s": _latency(11), "token_s": _token(60)},
        "ll.dispatch": {**ll, "latency_s": _latency(10)},
        "ll.combine": {**ll, "latency_s": _latency(10)},
        "ht.dispatch": {**ht, "latency_s": _latency(30)},
        "ht.combine": {**ht, "latency_s": _latency(40)},
    }
    assert all(phase.split(".")[0] in FAMILIES for phase in phases)
    return {
        f"{phase}.{quantity}": prior
        for phase, quantities in phases.items()
        for quantity, prior in quantities.items()
    }


PRIORS = _priors()
ABSENT = {"launch_s": 0.0, "network_latency_s": 0.0, "crowding": 0.0, "link_share": 1.0, "network_share": 1.0}


def factors(base: str, kernel: str, generation: str, wire: str) -> Sequence[tuple[str, float]]:
    """Names of the factors of `family.phase.quantity`, each with its spread. kernel, generation: empty where
    they were never measured."""
    between = BETWEEN[base.rsplit(".", 1)[1]]
    found = [
        (f"{base}[{kernel}]", between.kernel if kernel else 0.0),
        (f"{base}[{kernel},{generation}]", between.generation if kernel and generation else 0.0),
        (f"{base}[{wire}]", between.format),
        (f"{base}[{kernel},{wire}]", between.format if kernel else 0.0),
    ]
    return [(name, spread) for name, spread in found if spread > 0]
