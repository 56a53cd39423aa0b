"""A uniform number for each (seed, position), by counting and not by a state.

SplitMix64 (Steele, Lea, Flood 2014): output i of a stream is mix(key + i * gamma). Here i is the
position of the token in its sequence, and the key is itself a mix of the seed, so that neighbouring
seeds start at unrelated places. No draw depends on how many were made before it.
"""

from typing import Final

import numpy as np
import numpy.typing as npt

from rackscale.core import IntColumn

_GAMMA: Final = 0x9E3779B97F4A7C15
_MIX_1: Final = 0xBF58476D1CE4E5B9
_MIX_2: Final = 0x94D049BB133111EB
_MASK: Final = (1 << 64) - 1
_TO_UNIT: Final = 2.0**-53  # 53 bits fill a float64's mantissa: always below 1


def stream_key(seed: int) -> int:
    """The stream of a seed: any integer, taken modulo 2**64."""
    value = (seed + _GAMMA) & _MASK
    value = ((value ^ (value >> 30)) * _MIX_1) & _MASK
    value = ((value ^ (value >> 27)) * _MIX_2) & _MASK
    return value ^ (value >> 31)


def uniform(keys: npt.NDArray[np.uint64], positions: IntColumn) -> npt.NDArray[np.float64]:
    """One number in [0, 1) for each pair of a stream key and a position >= 0."""
    value = (positions.astype(np.uint64) + np.uint64(1)) * np.uint64(_GAMMA) + keys
    value = (value ^ (value >> np.uint64(30))) * np.uint64(_MIX_1)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(_MIX_2)
    bits = (value ^ (value >> np.uint64(31))) >> np.uint64(11)
    return bits.astype(np.float64) * _TO_UNIT
