"""Throughput by power, and energy by token: what chips draw with all that stands around them.

Watts are all-in for each chip of a deployment, idle or busy, as facilities provision them: "it" is the chip
with its share of host and network cards, "utility" adds cooling and losses (`SystemSpec.power_w`).
"""

from collections.abc import Mapping

from rackscale.core import SpecError

WATTS_PER_MW = 1e6


def watts_of(power_w: Mapping[str, float], name: str) -> float:
    """A chip's all-in watts. Raises SpecError for a power that the system does not tell."""
    if name not in power_w:
        raise SpecError(f"power {name} is not known", hint=f"give one of {', '.join(power_w)}")
    return power_w[name]


def tokens_per_s_per_mw(tokens_per_s_per_chip: float, watts: float) -> float:
    """Of a megawatt's chips, each drawing so many watts."""
    return tokens_per_s_per_chip / watts * WATTS_PER_MW


def joules_per_token(tokens_per_s_per_chip: float, watts: float) -> float:
    """Energy of a token, input or output alike."""
    return watts / tokens_per_s_per_chip
