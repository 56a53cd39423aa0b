"""What a plan changes in the block tables of a rank's rows."""

import numpy as np

from rackscale.core import IntColumn, column


class TableChanges:
    """Collected part by part, and given as columns in parallel."""

    def __init__(self) -> None:
        self._parts: list[tuple[IntColumn, IntColumn, IntColumn]] = []

    def add(self, rows: IntColumn, indices: IntColumn, blocks: IntColumn) -> None:
        """Entry `indices[i]` of the table of `rows[i]` becomes `blocks[i]`."""
        if len(blocks):
            self._parts.append((rows, indices, blocks))

    def columns(self) -> tuple[IntColumn, IntColumn, IntColumn]:
        """Rows, indices and blocks."""
        if not self._parts:
            return column(), column(), column()
        rows, indices, blocks = zip(*self._parts, strict=True)
        return np.concatenate(rows), np.concatenate(indices), np.concatenate(blocks)
