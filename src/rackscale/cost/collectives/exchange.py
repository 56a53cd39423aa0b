"""Tokens to their experts' ranks and back: of one MoE layer, on one rank."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64] | float


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Exchange:
    """Numbers, or arrays that broadcast.

    ranks: the width of expert parallelism. tokens_per_rank: before dispatch, may be a fraction. dispatch,
    combine: wire formats, see `wire`. skew: tokens of the slowest rank over the mean, >= 1.
    groups, groups_per_token: experts' groups that a token's experts may come from (DeepSeek V3: 4 of 8);
    1 of 1 where they may come from everywhere. balanced: experts of a token are spread as evenly as they can,
    as benchmarks with a perfect router do.
    """

    ranks: Array
    tokens_per_rank: Array
    hidden: Array
    top_k: Array
    dispatch: str = "fp8"
    combine: str = "bf16"
    skew: Array = 1.0
    groups: Array = 1.0
    groups_per_token: Array = 1.0
    balanced: NDArray[np.bool_] | bool = False
