"""Where the golden models are, and ranks over them."""

from pathlib import Path

import torch

from rackscale.runtime.kernels import choose
from rackscale.runtime.rank import Rank

GOLDEN = Path(__file__).parents[1] / "golden" / "logits"
FAMILIES = sorted(folder.name for folder in GOLDEN.iterdir() if folder.is_dir())
BLOCK = 4
NUM_BLOCKS = 64
MAX_LEN = 80


def make_rank(checkpoint, kernels="auto", max_running=4, num_blocks=NUM_BLOCKS, dtype=torch.float32):
    return Rank(
        checkpoint,
        num_blocks=num_blocks,
        block_size=BLOCK,
        max_running=max_running,
        max_model_len=MAX_LEN,
        dtype=dtype,
        kernels=choose(kernels),
    )
