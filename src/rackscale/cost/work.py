"""What a step is asked: a model on groups of chips, and what they work on."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rackscale.cost.chips import Chips
from rackscale.cost.formats import Precision
from rackscale.cost.layouts import Layouts
from rackscale.cost.shape import Shape

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Batch:
    """What a step of a whole group works on, [R]. sequences: of the group. queries: tokens of each, 1 in
    plain decoding. context: tokens in the cache before them. prefill: whether these are prompts."""

    sequences: Array
    queries: Array
    context: Array
    prefill: bool


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Work:
    """Everything that a step's time depends on. engine, recipe: numbers in `GROUPS`, [R], of the engine and
    of its way on this generation of chips; -1 for one never measured. balance: 0 to 1, see
    `expert_load.slowest`. graphs: whether steps run as CUDA graphs."""

    shape: Shape
    chips: Chips
    layouts: Layouts
    precision: Precision
    recipe: NDArray[np.intp]
    engine: NDArray[np.intp]
    balance: Array
    graphs: bool = True
