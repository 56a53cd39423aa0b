"""Tokens' KV from the slots of one tensor to those of another."""

import torch
from torch import Tensor

from rackscale.core import IntColumn

try:
    from rackscale.runtime import _native
except ImportError:  # no compiler built it: torch copies, twice
    _native = None  # type: ignore[assignment]  # a module, or none


def copy_slots(source: Tensor, source_slots: IntColumn, target: Tensor, target_slots: IntColumn) -> int:
    """Both [slots, ...] and alike but for the number of slots. Gives the bytes that were copied.

    Whole rows go by memcpy, neighbours at once; views of parts of rows by torch.
    """
    if _native is not None and source.is_contiguous() and target.is_contiguous():
        row_bytes = source[0].nbytes
        _native.copy_rows(source.data_ptr(), source_slots, row_bytes, target.data_ptr(), target_slots)
        return row_bytes * len(source_slots)
    moved = source[torch.from_numpy(source_slots).long()]
    target[torch.from_numpy(target_slots).long()] = moved
    return moved.nbytes
