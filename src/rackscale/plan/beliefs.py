"""Parameters as plans take them: the best ones, what measurements leave open, and what rows deviate."""

from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from rackscale.cost import Parameters, draws, fitted
from rackscale.plan.interval import Noise, NoiseTable, fitted_noise

ONE_NODE = 8  # chips of the largest host that benchmarks count as one node
SYSTEM_SUFFIX = "-nvl72"
NEW = "new system"  # as the table of noise calls what the fit has never seen


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Beliefs:
    """best: one row. draws: [K, P]."""

    best: Parameters
    draws: Parameters
    noise: NoiseTable

    @classmethod
    def of_fit(cls) -> Self:
        """Those of the committed fit."""
        return cls(best=fitted(), draws=draws(), noise=fitted_noise())

    @property
    def all(self) -> Parameters:
        """[1 + K, P]: the best row, then the draws."""
        moved = np.concatenate([self.best.moved, self.draws.moved])
        return replace(self.best, moved=moved)

    def noise_of(self, system: str, chips: float, metric: str) -> Noise:
        """Of a deployment of so many chips. system: a name of the catalog."""
        return self.noise[self.regime(system, chips), metric]

    def regime(self, system: str, chips: float) -> str:
        """As the table of noise names it."""
        hardware = system.removeprefix("hgx-").removesuffix(SYSTEM_SUFFIX)
        if hardware not in self.noise.systems:
            return NEW
        return "one node" if chips <= ONE_NODE else "several nodes"
