"""Where the golden models are, ranks over them, and steps made by hand."""

from pathlib import Path

import numpy as np
import pytest
import torch

from rackscale.core import SpecError
from rackscale.runtime.batch import make_batch
from rackscale.runtime.kernels import choose
from rackscale.runtime.kv_cache import KvCache, KvShape
from rackscale.runtime.model import load_model
from rackscale.runtime.rank import Rank

GOLDEN = Path(__file__).parents[1] / "golden" / "logits"
FAMILIES = sorted(folder.name for folder in GOLDEN.iterdir() if folder.is_dir())
BLOCK = 4
NUM_BLOCKS = 64
MAX_LEN = 80


def _built():
    try:
        choose("native")
    except SpecError:
        return False
    return True


NATIVE_IS_BUILT = _built()
KERNELS = [
    pytest.param("native", marks=pytest.mark.skipif(not NATIVE_IS_BUILT, reason="no compiler built it")),
    "reference",
]


def make_rank(
    checkpoint,
    kernels="auto",
    max_running=4,
    num_blocks=NUM_BLOCKS,
    block_size=BLOCK,
    max_model_len=MAX_LEN,
    activations="auto",
    weights="auto",
):
    loaded = load_model(
        checkpoint,
        activations=activations,
        weights=weights,
        kernels=choose(kernels),
        max_positions=max_model_len,
    )
    shape = KvShape(model=checkpoint.spec, num_blocks=num_blocks, block_size=block_size, dtype=loaded.dtype)
    cache = KvCache(
        shape.layers(), block_size=block_size, max_running=max_running, max_model_len=max_model_len
    )
    tokenizer = checkpoint.tokenizer
    return Rank(
        loaded,
        cache,
        max_model_len=max_model_len,
        tokenizer_path=None if tokenizer is None else tokenizer.path,
    )


def scatter_blocks(rank, num_rows):
    """The first rows own blocks that lie anywhere in the cache."""
    cache = rank.cache
    num_blocks = len(cache.layers[0][0]) // cache.block_size
    per_row = cache.table.shape[1]
    blocks = torch.randperm(num_blocks, generator=torch.Generator().manual_seed(7))
    cache.table[:num_rows] = blocks[: num_rows * per_row].view(num_rows, per_row).numpy()


def logits_by_pieces(rank, ids_RL, pieces):
    """Logits [R, L, V] of every token of R rows, computed in steps of the given lengths for each row."""
    rows = np.arange(len(ids_RL), dtype=np.int32)
    scatter_blocks(rank, len(rows))
    parts, start = [], 0
    with torch.inference_mode():
        for size in pieces:
            tokens = ids_RL[:, start : start + size].reshape(-1).numpy().astype(np.int32)
            counts = np.full(len(rows), size, dtype=np.int32)
            batch = make_batch(rank.cache, tokens, rows, rows * 0 + start, counts, None, rank.device)
            parts.append(rank.model(batch, rank.cache).view(len(rows), size, -1))
            start += size
    assert start == ids_RL.shape[1]
    return torch.cat(parts, 1)
