"""The parameters' fitted values."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rackscale.cost.collectives.priors import ABSENT, BETWEEN, PRIORS, QUANTITIES, factors
from rackscale.cost.collectives.protocols import Protocol
from rackscale.cost.collectives.terms import Terms
from rackscale.cost.priors import GENERATIONS

Array = NDArray[np.float64]
NORMAL_95 = 1.645  # of a normal distribution's deviations 5 % lie above


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Coefficients:
    """logs: of parameters by name, see `priors`; a family's own that is missing has its prior's value.
    half_width: of the 90 % interval of a logarithm of seconds, by kernel, and "new" for one that was
    never measured."""

    logs: Mapping[str, float]
    half_width: Mapping[str, float]

    def terms(self, protocol: Protocol, phase: str, wire: str, generation: NDArray[np.intp] | int) -> Terms:
        """Of each generation's number, [R] as they are."""
        values = {
            quantity: _by_generation(self, f"{protocol.family}.{phase}.{quantity}", protocol.kernel, wire)[
                generation
            ]
            for quantity in QUANTITIES
        }
        return Terms(**values)

    def interval_half_width(self, protocol: Protocol, generation: NDArray[np.intp] | int) -> Array:
        """[R]: of the 90 % interval of a logarithm of seconds."""
        if not protocol.kernel:
            return np.full(np.shape(generation), self.half_width["new"])
        known = self.half_width[protocol.kernel]
        between = NORMAL_95 * BETWEEN["latency_s"].generation
        return np.where(np.asarray(generation) < 0, np.hypot(known, between), known)


@cache
def _by_generation(coefficients: Coefficients, base: str, kernel: str, wire: str) -> Array:
    """Of each generation, and last of any other."""
    members = (*GENERATIONS, "")
    if base not in PRIORS:
        return np.full(len(members), ABSENT[base.rsplit(".", 1)[1]])
    logs = coefficients.logs
    centre = logs.get(base, float(np.log(PRIORS[base].value)))
    further = [
        sum(logs.get(name, 0.0) for name, _ in factors(base, kernel, member, wire)) for member in members
    ]
    return np.exp(centre + np.array(further))


@cache
def fitted() -> Coefficients:
    """As `fitted/collectives.toml` has them."""
    file = fitted_file()
    return Coefficients(
        logs={name: float(np.log(entry["value"])) for name, entry in file["parameters"].items()},
        half_width=file["half_width"],
    )


@cache
def fitted_file() -> Mapping[str, Any]:
    """The whole file: parameters, the fit's report, reductions and transfers."""
    path = resources.files("rackscale.cost") / "fitted" / "collectives.toml"
    return tomllib.loads(path.read_text(encoding="utf-8"))
