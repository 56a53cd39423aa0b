"""Where tokens are in the cache."""

import numpy as np
import torch
from golden_ranks import GOLDEN

from rackscale.checkpoint import open_checkpoint
from rackscale.core import column
from rackscale.runtime.kv_cache import KvCache


def cache_of(family):
    return KvCache(
        open_checkpoint(GOLDEN / family, tokenizer_required=False).spec,
        num_blocks=8,
        block_size=4,
        max_running=3,
        max_model_len=10,
        dtype=torch.bfloat16,
        device=torch.device("cpu"),
    )


def test_sizes_follow_from_the_attention():
    latent, grouped = cache_of("deepseek_v3"), cache_of("mixtral")
    assert latent.table.shape == grouped.table.shape == (3, 3)
    for cache, parts in ((latent, 1), (grouped, 2)):
        assert all(len(layer) == parts for layer in cache.layers)
        assert all(
            part.dtype == torch.bfloat16 and len(part) == 32 for layer in cache.layers for part in layer
        )


def test_slots_go_through_the_table():
    cache = cache_of("mixtral")
    cache.assign(column([1, 1, 2]), column([0, 2, 0]), column([5, 2, 7]))
    assert cache.slots(column([1, 1, 2]), column([3, 8, 0])).tolist() == [23, 8, 28]
    cache.assign(column([1]), column([1]), column([6]))
    assert cache.slots_of(1, 9).tolist() == [*range(20, 28), 8]
    everywhere = cache.slots(np.full(9, 1, dtype=np.int32), np.arange(9, dtype=np.int32))
    assert cache.slots_of(1, 9).tolist() == everywhere.tolist()
