"""Links between chips, as columns: one entry for each row or layout, or one for all."""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from rackscale.cost.chips import Chips

Array = NDArray[np.float64] | float


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Links:
    """generation: number in `cost.priors.GENERATIONS`, -1 for one never measured. domain: chips that the
    scale-up fabric joins. fabric_bytes_per_s, network_bytes_per_s: a chip's, one direction, inside a domain
    and out of it."""

    generation: NDArray[np.intp] | int
    domain: Array
    fabric_bytes_per_s: Array
    network_bytes_per_s: Array

    @classmethod
    def of(cls, chips: Chips) -> Self:
        """Those that join these chips."""
        return cls(
            generation=chips.generation,
            domain=chips.domain,
            fabric_bytes_per_s=chips.fabric_bytes_per_s,
            network_bytes_per_s=chips.network_bytes_per_s,
        )
