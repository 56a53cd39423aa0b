"""What the model sees of a step: tokens in a row, the decodes first, and where their KV is."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from rackscale.core import IntColumn
from rackscale.runtime.kv_cache import KvCache


@dataclass(frozen=True, kw_only=True, slots=True)
class Chunk:
    """Several tokens of one row: tokens start .. end - 1 of the step, the first at `position` of the row.
    context: the slots of the row's tokens from its first to the chunk's last."""

    start: int
    end: int
    position: int
    context: Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class Decodes:
    """One token each of rows that have `lengths` tokens with it. rows and lengths are int32 columns on the
    host; table is the cache's own."""

    rows: IntColumn
    lengths: IntColumn
    table: IntColumn
    block_size: int

    def __len__(self) -> int:
        return len(self.rows)


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    """T tokens. token_ids, positions and slots are int64 [T] on the device; sampled [S] says of which
    tokens logits are wanted, None: of all. The first len(decodes) tokens are the decodes."""

    token_ids: Tensor
    positions: Tensor
    slots: Tensor
    sampled: Tensor | None
    decodes: Decodes
    chunks: tuple[Chunk, ...]


def make_batch(
    cache: KvCache,
    tokens: IntColumn,
    rows: IntColumn,
    first: IntColumn,
    num_new: IntColumn,
    sampled: IntColumn | None,
    device: torch.device,
) -> Batch:
    """A batch of `num_new[i]` tokens of `rows[i]` from position `first[i]` on; tokens: all of them,
    rows one after the other, rows with one new token first."""
    row_of, positions = spread(rows, first, num_new)
    num_decodes = int(np.count_nonzero(num_new == 1))

    def put(values: IntColumn) -> Tensor:
        return torch.from_numpy(values.astype(np.int64)).to(device)

    return Batch(
        token_ids=put(tokens),
        positions=put(positions),
        slots=put(cache.slots(row_of, positions)),
        sampled=None if sampled is None else put(sampled),
        decodes=Decodes(
            rows=np.ascontiguousarray(rows[:num_decodes], dtype=np.int32),
            lengths=(first[:num_decodes] + 1).astype(np.int32),
            table=cache.table,
            block_size=cache.block_size,
        ),
        chunks=tuple(
            Chunk(
                start=start,
                end=start + count,
                position=position,
                context=put(cache.slots_of(row, position + count)),
            )
            for row, position, count, start in _chunks(rows, first, num_new, num_decodes)
        ),
    )


def spread(rows: IntColumn, first: IntColumn, num_new: IntColumn) -> tuple[IntColumn, IntColumn]:
    """The row and the position of every token that the rows add."""
    if len(rows) == num_new.sum():
        return rows, first
    row_of: IntColumn = np.repeat(rows, num_new)
    starts = np.cumsum(num_new) - num_new
    positions = (np.arange(len(row_of)) + np.repeat(first - starts, num_new)).astype(np.int32)
    return row_of, positions


def _chunks(
    rows: IntColumn, first: IntColumn, num_new: IntColumn, num_decodes: int
) -> Iterator[tuple[int, int, int, int]]:
    """Row, position, number of tokens and place in the batch of each chunk."""
    start = num_decodes
    for row, position, count in zip(
        rows[num_decodes:].tolist(), first[num_decodes:].tolist(), num_new[num_decodes:].tolist(), strict=True
    ):
        yield row, position, count, start
        start += count
