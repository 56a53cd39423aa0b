"""The paged KV cache of one rank: slots in blocks, one table of rows to blocks for all layers.

Latent attention keeps one vector a token (latent and rotated key), grouped-query attention keys and values.
"""

from dataclasses import dataclass
from math import prod
from mmap import mmap
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from rackscale.core import IntColumn
from rackscale.specs import GqaSpec, MlaSpec, ModelSpec, share_heads

KvLayers: TypeAlias = list[tuple[Tensor, ...]]


@dataclass(frozen=True, kw_only=True, slots=True)
class KvShape:
    """The KV of one rank: num_blocks blocks of block_size slots in each layer. tp: so many ranks have the
    heads between them; all have latents, which all heads see."""

    model: ModelSpec
    num_blocks: int
    block_size: int
    dtype: torch.dtype
    tp: int = 1

    @property
    def parts(self) -> tuple[tuple[int, ...], ...]:
        """The shapes of a layer's tensors."""
        slots = self.num_blocks * self.block_size
        match self.model.attention:
            case MlaSpec(kv_lora_rank=rank, rope_head_dim=rope):
                return ((slots, rank + rope),)
            case GqaSpec(head_dim=dim) as gqa:
                heads = share_heads(gqa, self.tp).cached.size
                return ((slots, heads, dim), (slots, heads, dim))

    @property
    def num_bytes(self) -> int:
        """Of all layers."""
        elements = sum(prod(part) for part in self.parts) * self.model.num_layers
        return elements * self.dtype.itemsize

    def layers(self, memory: mmap | None = None, device: str = "cpu") -> KvLayers:
        """Each layer's tensors: in `memory`, which has num_bytes at least, or in zeros of their own."""
        if memory is None:
            return [
                tuple(torch.zeros(part, dtype=self.dtype, device=device) for part in self.parts)
                for _ in self.model.layers
            ]
        flat = torch.frombuffer(memory, dtype=self.dtype)
        sizes = [prod(part) for _ in self.model.layers for part in self.parts]
        split = iter(flat[: sum(sizes)].split(sizes))
        return [tuple(next(split).view(part) for part in self.parts) for _ in self.model.layers]


class KvCache:
    """One rank's: its layers, and `table[row, i]`, the block of a row's tokens from i * block_size on."""

    def __init__(self, layers: KvLayers, *, block_size: int, max_running: int, max_model_len: int) -> None:
        self.layers, self.block_size = layers, block_size
        self.table = np.zeros((max_running, -(-max_model_len // block_size)), dtype=np.int32)

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
