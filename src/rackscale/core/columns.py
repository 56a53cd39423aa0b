"""Columns: what a step says of many requests is one integer array each, not an object a request."""

from collections.abc import Iterable
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

BoolColumn: TypeAlias = npt.NDArray[np.bool_]
IntColumn: TypeAlias = npt.NDArray[np.int32]


def column(values: Iterable[int] = ()) -> IntColumn:
    """An int32 column of the values given."""
    return np.fromiter(values, dtype=np.int32)
