"""The text in windows, and what a layer needs to be run over one."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from rackscale.core import TokenId
from rackscale.runtime.batch import Batch, make_batch
from rackscale.runtime.kv_cache import KvCache, KvShape
from rackscale.runtime.rope import Rope
from rackscale.specs import ModelSpec

BLOCK_SIZE = 16


class Windows:
    """Pieces of `size` tokens, the last one shorter, each on its own in a cache of one layer."""

    def __init__(self, spec: ModelSpec, tokens: Sequence[TokenId], size: int) -> None:
        self.tokens = torch.tensor(tokens).split(size)
        self.rope = Rope(spec.rope, size, torch.device("cpu"))
        one_layer = replace(spec, layers=spec.layers[:1])
        num_blocks = -(-size // BLOCK_SIZE)
        shape = KvShape(model=one_layer, num_blocks=num_blocks, block_size=BLOCK_SIZE, dtype=torch.float32)
        self._cache = KvCache(shape.layers(), block_size=BLOCK_SIZE, max_running=1, max_model_len=size)
        self._cache.table[0] = np.arange(num_blocks)

    @property
    def kv(self) -> tuple[Tensor, ...]:
        """The KV of the layer that runs."""
        return self._cache.layers[0]

    def batch(self, length: int) -> Batch:
        """A window of so many tokens, as a prefill from its first."""
        zero = np.zeros(1, dtype=np.int32)
        count = np.array([length], dtype=np.int32)
        tokens = np.zeros(length, dtype=np.int32)
        return make_batch(self._cache, tokens, zero, zero, count, None, torch.device("cpu"))
