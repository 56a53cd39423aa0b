"""What was asked of each expert lately."""

import numpy as np

from rackscale.core import IntColumn, SpecError
from rackscale.policy.expert_placement.placement import Loads


class ExpertLoads:
    """Tokens of each expert, gathered step by step; what is `half_life_steps` old counts half.

    Raises SpecError unless half_life_steps is above 0.
    """

    def __init__(self, num_layers: int, num_experts: int, half_life_steps: float) -> None:
        if not half_life_steps > 0:
            raise SpecError(f"a half-life of {half_life_steps} steps", hint="give one above 0")
        self.num_steps = 0
        self._fade = 0.5 ** (1 / half_life_steps)
        self._loads = np.zeros(num_layers * num_experts)
        self._shape = (num_layers, num_experts)

    def add(self, loads: IntColumn) -> None:
        """Take in one step: int32, layer by layer, an expert each, summed over the ranks."""
        self._loads *= self._fade
        self._loads += loads
        self.num_steps += 1

    def layer(self, number: int) -> Loads:
        """float64 [1, experts]: one layer's, a copy."""
        loads_1E: Loads = self._loads.reshape(self._shape)[number : number + 1].copy()
        return loads_1E

    @property
    def loads(self) -> Loads:
        """float64 [layers, experts]: the faded sums, a copy. Only their proportions mean anything."""
        loads_LE: Loads = self._loads.reshape(self._shape).copy()
        return loads_LE
