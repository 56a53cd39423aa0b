"""The rows of one rank: state by request as columns, so that a step over thousands is a few array operations.

A row's tokens are known up to `num_known` and placeholders from there to `num_tokens`: a token that a step in
flight will sample. Its KV is computed, by steps done or in flight, up to `num_computed`. `epoch` counts who
has had the row, so that a sample for a former owner is told apart.
"""

import numpy as np

from rackscale.core import BoolColumn, IntColumn
from rackscale.engine.sequence import Sequence

NO_TOKEN = -1
FIRST_WIDTH = 256


class Rows:
    """`num_rows` rows whose sequences have at most `max_len` tokens in blocks of `block_size`."""

    def __init__(self, num_rows: int, max_len: int, block_size: int) -> None:
        self.num_rows, self.max_len, self.block_size = num_rows, max_len, block_size
        self.sequences: list[Sequence | None] = [None] * num_rows
        self.ids = np.full(num_rows, "", dtype=object)
        self.epoch = self._zeros()
        self.num_prompt = self._zeros()
        self.num_seated = self._zeros()  # tokens that the sequence came with: up to here is prefill
        self.num_known = self._zeros()
        self.num_tokens = self._zeros()
        self.num_computed = self._zeros()
        self.num_blocks = self._zeros()
        self.limit = self._zeros()
        self.min_known = self._zeros()  # no stop token ends a row with fewer known tokens
        self.stops = np.full((num_rows, 1), NO_TOKEN, dtype=np.int32)
        width = min(max_len, FIRST_WIDTH)
        self.tokens = np.zeros((num_rows, width), dtype=np.int32)
        self.table = np.zeros((num_rows, -(-width // block_size)), dtype=np.int32)
        self.order = np.zeros(0, dtype=np.int32)  # taken rows, the most important first
        self._importance = np.zeros(num_rows, dtype=np.float64)
        self._free = list(range(num_rows - 1, -1, -1))

    def _zeros(self) -> IntColumn:
        return np.zeros(self.num_rows, dtype=np.int32)

    @property
    def num_free(self) -> int:
        return len(self._free)

    def seat(self, sequence: Sequence, blocks: IntColumn, num_computed: int) -> int:
        """Give the sequence a row. blocks: that hold the KV of its first `num_computed` tokens."""
        row = self._free.pop()
        tokens = sequence.tokens()
        known = len(tokens)
        self._widen(known + 1)
        self.tokens[row, :known] = tokens
        self.table[row, : len(blocks)] = blocks
        self.sequences[row] = sequence
        self.ids[row] = sequence.request.id
        self.num_prompt[row] = len(sequence.request.prompt)
        self.num_known[row] = self.num_tokens[row] = self.num_seated[row] = known
        self.num_computed[row] = num_computed
        self.num_blocks[row] = len(blocks)
        self.limit[row] = sequence.limit
        self.min_known[row] = len(sequence.request.prompt) + sequence.request.min_tokens
        self._set_stops(row, sequence.request.stop_token_ids)
        self._importance[row] = sequence.importance
        at = np.searchsorted(self._importance[self.order], sequence.importance, side="right")
        self.order = np.insert(self.order, at, row)
        return row

    def prefill_only(self, row: int) -> None:
        """The row samples one token, and no more."""
        self.limit[row] = min(self.limit[row], self.num_tokens[row] + 1)

    def vacate(self, row: int) -> IntColumn:
        """Take the row from its sequence, and give the blocks that it had."""
        blocks = self.blocks(row).copy()
        self.sequences[row] = None
        self.ids[row] = ""
        self.epoch[row] += 1
        self.num_blocks[row] = 0
        self.order = self.order[self.order != row]
        self._free.append(row)
        return blocks

    def gaps(self) -> tuple[IntColumn, IntColumn]:
        """Rows that have something to compute, by importance, and how much. The last token of a full
        sequence needs no KV."""
        order = self.order
        tokens = self.num_tokens[order]
        gaps = np.where(tokens < self.limit[order], tokens - self.num_computed[order], 0)
        open_ = gaps > 0
        return order[open_], gaps[open_]

    def blocks_lacking(self, rows: IntColumn, num_new: IntColumn) -> IntColumn:
        """Blocks that each row lacks for its next tokens."""
        reach = self.num_computed[rows] + num_new
        lacking: IntColumn = np.maximum(0, -(-reach // self.block_size) - self.num_blocks[rows])
        return lacking

    def append_blocks(
        self, rows: IntColumn, counts: IntColumn, blocks: IntColumn
    ) -> tuple[IntColumn, IntColumn]:
        """Hand out at least one block, `counts[i]` of them to rows[i]. Gives for each block whose it is
        and its index in that row's table."""
        first = self.num_blocks[rows] - (np.cumsum(counts) - counts)
        owners = np.repeat(rows, counts)
        indices = (np.repeat(first, counts) + np.arange(len(blocks))).astype(np.int32)
        self._widen_table(int(indices.max()) + 1)
        self.table[owners, indices] = blocks
        self.num_blocks[rows] += counts
        return owners, indices

    def advance(self, rows: IntColumn, num_new: IntColumn) -> BoolColumn:
        """The rows' next tokens are in a step. Gives which of them thereby sample one: their new
        token is a placeholder from here on."""
        self.num_computed[rows] += num_new
        samples: BoolColumn = self.num_computed[rows] == self.num_tokens[rows]
        self.num_tokens[rows[samples]] += 1
        return samples

    def record(self, rows: IntColumn, tokens: IntColumn) -> tuple[BoolColumn, BoolColumn]:
        """Placeholders become known. Gives which rows drew one of their stop tokens, and which are at
        their limit."""
        at = self.num_known[rows]
        self._widen(int(at.max(initial=0)) + 1)
        self.tokens[rows, at] = tokens
        known = at + np.int32(1)
        self.num_known[rows] = known
        stopped: BoolColumn = (self.stops[rows] == tokens[:, None]).any(axis=1)
        stopped &= known > self.min_known[rows]
        return stopped, known == self.limit[rows]

    def known(self, row: int) -> IntColumn:
        """The row's known tokens."""
        return self.tokens[row, : self.num_known[row]]

    def blocks(self, row: int) -> IntColumn:
        """The row's blocks."""
        return self.table[row, : self.num_blocks[row]]

    def check(self) -> None:
        """Assert that the columns of the taken rows agree, and that all other rows are free."""
        order = self.order
        assert sorted(order.tolist() + self._free) == list(range(self.num_rows)), "a row is lost"
        assert (np.diff(self._importance[order]) >= 0).all(), "rows are out of order"
        assert (self.num_prompt[order] <= self.num_seated[order]).all(), "a prompt is cut"
        assert (self.num_seated[order] <= self.num_known[order]).all(), "a row forgot tokens"
        assert (self.num_known[order] <= self.num_tokens[order]).all(), "more is known than there is"
        assert (self.num_tokens[order] <= self.limit[order]).all(), "a row is beyond its limit"
        assert (self.num_computed[order] <= self.num_tokens[order]).all(), "KV of no token"
        reach = self.num_blocks[order] * self.block_size
        assert (self.num_computed[order] <= reach).all(), "KV without a block"
        assert (reach < self.num_computed[order] + self.block_size).all(), "a block without KV"

    def _set_stops(self, row: int, stops: tuple[int, ...]) -> None:
        self.stops = _widened(self.stops, len(stops), fill=NO_TOKEN)
        self.stops[row] = NO_TOKEN
        self.stops[row, : len(stops)] = stops

    def _widen(self, width: int) -> None:
        have = self.tokens.shape[1]
        if width > have:
            self.tokens = _widened(self.tokens, min(self.max_len, max(width, 2 * have)))
            self._widen_table(-(-self.tokens.shape[1] // self.block_size))

    def _widen_table(self, width: int) -> None:
        self.table = _widened(self.table, width)


def _widened(matrix: IntColumn, width: int, fill: int = 0) -> IntColumn:
    """The matrix with at least `width` columns, the new ones filled.

    Zeros come from the operating system, which gives memory when it is touched: one long sequence
    does not cost its length in every row.
    """
    num_rows, have = matrix.shape
    if width <= have:
        return matrix
    wider = (
        np.full((num_rows, width), fill, dtype=np.int32) if fill else np.zeros((num_rows, width), np.int32)
    )
    wider[:, :have] = matrix
    return wider
