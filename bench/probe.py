"""The machine's limits, measured when they are asked for."""

import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np

NUM_BYTES = 2**30
REPEATS = 5


def bandwidth_gbs(threads: int) -> float:
    """GB/s of reading memory, the best of a few."""
    parts = np.array_split(np.ones(NUM_BYTES // 8, dtype=np.int64), threads)
    best_s = float("inf")
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(REPEATS):
            start = time.perf_counter()
            list(pool.map(np.bitwise_or.reduce, parts))
            best_s = min(best_s, time.perf_counter() - start)
    return NUM_BYTES / best_s / 1e9
