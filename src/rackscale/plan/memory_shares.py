"""What a rank's memory holds, by what for."""

from dataclasses import replace

import numpy as np

from rackscale.cost import Work
from rackscale.cost.memory import weight_bytes
from rackscale.plan.types import MemoryShare


def memory_shares(work: Work, sequences: float, length: float, room: float) -> tuple[MemoryShare, ...]:
    """Of one group's ranks; their bytes add up to a chip's memory.

    sequences: that a group has in its cache, of so many tokens. room: sequences that there is room for.
    """
    whole = _weights(work)
    shares = {"routed experts": whole - _weights(work, expert_bytes=0.0)}
    shares["shared and dense"] = whole - _weights(work, mlp_bytes=0.0)
    shares["attention"] = whole - _weights(work, linear_bytes=0.0)
    shares["embedding and head"] = whole - sum(shares.values())
    each = _cache_bytes(work, length)
    shares["KV cache"] = min(sequences, room) * each
    shares["free for KV"] = max(room - sequences, 0.0) * each
    shares["buffers and reserve"] = float(work.chips.hbm_bytes[0]) - sum(shares.values())
    return tuple(MemoryShare(name=name, bytes=max(size, 0.0)) for name, size in shares.items())


def _weights(work: Work, **nothing: float) -> float:
    precision = replace(work.precision, **{name: np.array([size]) for name, size in nothing.items()})
    return float(np.ravel(weight_bytes(replace(work, precision=precision)))[0])


def _cache_bytes(work: Work, length: float) -> float:
    """On each rank for a sequence of its group; tensor parallelism splits a cache by heads, or copies it."""
    layouts, shape = work.layouts, work.shape
    split = np.minimum(layouts.tp, shape.kv_split) * layouts.attentions
    return float(np.ravel(shape.kv_bytes_per_token(1.0) * work.precision.kv_bytes * length / split)[0])
