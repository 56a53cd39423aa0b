"""Chips and what joins them, as columns: one entry for each row or layout, or one for all."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from rackscale.cost.priors import GROUPS
from rackscale.specs.catalog import SystemSpec

Array = NDArray[np.float64]
MATHS = ("bf16", "fp8", "fp4")  # rows of `tensor_flops`
# Blackwell Ultra has half as many FP4 units again as four times its BF16 rate. Measured NVFP4 products gain
# 6 % of it over GB200's (4,978 to 5,299 TFLOP/s, aiconfigurator-core 0.12.0): 1.5 to the power of 0.15.
FP4_OVER_BF16 = 4.0
FP4_BEYOND = 0.15


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Chips:
    """Datasheet rates, [R] each. tensor_flops: [3, R] dense FLOP/s by `MATHS`; weights in a format that a
    chip has no units for are multiplied in BF16. generation: number in `GROUPS`, -1 for one never measured.
    fabric_bytes_per_s, network_bytes_per_s: a chip's, one direction, inside a domain and out of it;
    host_bytes_per_s: to its host's memory. tdp_w: thermal design power, watts."""

    generation: NDArray[np.intp]
    tensor_flops: Array
    hbm_bytes: Array
    hbm_bytes_per_s: Array
    domain: Array
    fabric_bytes_per_s: Array
    network_bytes_per_s: Array
    host_bytes_per_s: Array
    tdp_w: Array

    @classmethod
    def of(cls, systems: Sequence[SystemSpec]) -> Self:
        """Columns of these systems."""

        def column(values: Sequence[float]) -> Array:
            return np.array(values, dtype=np.float64)

        generations = GROUPS["generation"]
        return cls(
            generation=np.array(
                [
                    generations.index(system.chip.generation) if system.chip.generation in generations else -1
                    for system in systems
                ],
                dtype=np.intp,
            ),
            tensor_flops=np.array([_rates(system) for system in systems]).T,
            hbm_bytes=column([system.chip.hbm_bytes for system in systems]),
            hbm_bytes_per_s=column([system.chip.hbm_bytes_per_s for system in systems]),
            domain=column([system.domain_chips for system in systems]),
            fabric_bytes_per_s=column([system.scale_up_bytes_per_s for system in systems]),
            network_bytes_per_s=column([system.scale_out_bytes_per_s for system in systems]),
            host_bytes_per_s=column([system.host_link_bytes_per_s for system in systems]),
            tdp_w=column([system.chip.tdp_w for system in systems]),
        )


def _rates(system: SystemSpec) -> list[float]:
    known = system.chip.tensor_flops
    bf16, fp8, fp4 = (known.get(math) or known["bf16"] for math in MATHS)
    usual = FP4_OVER_BF16 * bf16
    return [bf16, fp8, fp4 if fp4 <= usual else usual * (fp4 / usual) ** FP4_BEYOND]
