"""What rows of a benchmark measure, by name."""

import numpy as np
from numpy.typing import NDArray

from rackscale.plan.closed_loop import Loop

METRICS = ("tpot", "ttft", "tokens_per_s_per_gpu")


def metrics(loop: Loop) -> dict[str, NDArray[np.float64]]:
    """[K, R] of each of `METRICS`: seconds, seconds, and input and output tokens per second and chip."""
    return {"tpot": loop.tpot_s, "ttft": loop.ttft_s, "tokens_per_s_per_gpu": loop.tokens_per_s_per_chip}
