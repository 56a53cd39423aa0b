"""Where tokens are in the cache."""

import numpy as np
import pytest
import torch
from golden_ranks import GOLDEN

from rackscale.checkpoint import open_checkpoint
from rackscale.core import column
from rackscale.runtime.comm.heap import Heap
from rackscale.runtime.kv_cache import KvCache, KvShape


def cache_of(family):
    return KvCache(shape_of(family).layers(), block_size=4, max_running=3, max_model_len=10)


def shape_of(family):
    spec = open_checkpoint(GOLDEN / family, tokenizer_required=False).spec
    return KvShape(model=spec, num_blocks=8, block_size=4, dtype=torch.bfloat16)


@pytest.mark.parametrize("family", ["deepseek_v3", "mixtral"])
def test_layers_lie_in_memory_that_is_given(family):
    shape = shape_of(family)
    (memory,) = Heap(1, shape.num_bytes).segments
    layers = shape.layers(memory)
    assert sum(part.nbytes for layer in layers for part in layer) == shape.num_bytes
    for number, part in enumerate(part for layer in layers for part in layer):
        part.fill_(number)
    again = [part for layer in shape.layers(memory) for part in layer]
    assert all((part == number).all() for number, part in enumerate(again))


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
