"""The paged KV cache of one rank: slots in blocks, one table of rows to blocks for all layers.

Latent attention keeps one vector a token (latent and rotated key), grouped-query attention keys and values.
"""

import numpy as np
import torch
from torch import Tensor

from rackscale.core import IntColumn
from rackscale.specs import GqaSpec, MlaSpec, ModelSpec


class KvCache:
    """num_blocks blocks of block_size slots; `table[row, i]` is the block of a row's tokens from
    i * block_size on."""

    def __init__(
        self,
        model: ModelSpec,
        *,
        num_blocks: int,
        block_size: int,
        max_running: int,
        max_model_len: int,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        self.block_size = block_size
        self.table = np.zeros((max_running, -(-max_model_len // block_size)), dtype=np.int32)
        slots = num_blocks * block_size
        match model.attention:
            case MlaSpec(kv_lora_rank=rank, rope_head_dim=rope):
                shapes: tuple[tuple[int, ...], ...] = ((slots, rank + rope),)
            case GqaSpec(num_kv_heads=heads, head_dim=dim):
                shapes = ((slots, heads, dim), (slots, heads, dim))
        self.layers: list[tuple[Tensor, ...]] = [
            tuple(torch.zeros(shape, dtype=dtype, device=device) for shape in shapes) for _ in model.layers
        ]

    def assign(self, rows: IntColumn, indices: IntColumn, blocks: IntColumn) -> None:
        """Entries of the table change, in parallel."""
        self.table[rows, indices] = blocks

    def slots(self, rows: IntColumn, positions: IntColumn) -> IntColumn:
        """Where the tokens at `positions` of `rows` are."""
        blocks = self.table[rows, positions // self.block_size]
        slots: IntColumn = blocks * self.block_size + positions % self.block_size
        return slots

    def slots_of(self, row: int, length: int) -> IntColumn:
        """Where the first `length` tokens of a row are."""
        blocks = self.table[row, : -(-length // self.block_size)]
        slots: IntColumn = np.add.outer(blocks * self.block_size, np.arange(self.block_size, dtype=np.int32))
        return slots.ravel()[:length]
