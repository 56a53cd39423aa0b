"""The machine's limits, measured when they are asked for."""

import torch

from rackscale.runtime import _native

NUM_BYTES = 2**30
REPEATS = 5


def bandwidth_gbs(threads: int) -> float:
    """GB/s of reading memory, the best of a few."""
    memory = torch.ones(NUM_BYTES, dtype=torch.uint8)
    found = [_native.read_bandwidth(memory.data_ptr(), NUM_BYTES, threads) for _ in range(REPEATS)]
    return max(found) / 1e9


def int8_gops(threads: int) -> float:
    """Billions of operations a second on int8, the best of a few."""
    return max(_native.peak(True, threads) for _ in range(REPEATS)) / 1e9  # noqa: FBT003 (by position)
