"""What the model sees of a step: tokens in a row, the decodes first, and where their KV is."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

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


@dataclass(frozen=True, kw_only=True)
class Batch:
    """T tokens: what they are, in which rows and at which positions. The first len(decodes) are the decodes.
    sampled [S]: the tokens whose logits are wanted. Columns are on the host; what is asked for as a tensor
    comes in int64 and on the device."""

    tokens: IntColumn
    row_of: IntColumn
    position_of: IntColumn
    sampled: IntColumn
    decodes: Decodes
    chunks: tuple[Chunk, ...]
    cache: KvCache
    device: torch.device

    @cached_property
    def token_ids(self) -> Tensor:
        return put(self.tokens, self.device)

    @cached_property
    def positions(self) -> Tensor:
        return put(self.position_of, self.device)

    @cached_property
    def slots(self) -> Tensor:
        """Where the tokens' KV goes."""
        return put(self.cache.slots(self.row_of, self.position_of), self.device)

    @cached_property
    def samples(self) -> Tensor:
        return put(self.sampled, self.device)


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
    rows one after the other, rows with one new token first. sampled None: all are."""
    row_of, position_of = spread(rows, first, num_new)
    num_decodes = int(np.count_nonzero(num_new == 1))
    return Batch(
        tokens=tokens,
        row_of=row_of,
        position_of=position_of,
        sampled=np.arange(len(tokens), dtype=np.int32) if sampled is None else sampled,
        decodes=Decodes(
            rows=rows[:num_decodes],
            lengths=first[:num_decodes] + np.int32(1),
            table=cache.table,
            block_size=cache.block_size,
        ),
        chunks=tuple(
            Chunk(
                start=start,
                end=start + count,
                position=position,
                context=put(cache.slots_of(row, position + count), device),
            )
            for row, position, count, start in _chunks(rows, first, num_new, num_decodes)
        ),
        cache=cache,
        device=device,
    )


def put(values: IntColumn, device: torch.device) -> Tensor:
    """A column as a tensor to index with."""
    return torch.from_numpy(values.astype(np.int64)).to(device)


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
