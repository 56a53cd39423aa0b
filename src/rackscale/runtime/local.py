"""A model in this process, without a server: engine, rank and checkpoint put together."""

import time
from dataclasses import dataclass
from pathlib import Path

import torch

from rackscale.checkpoint import Checkpoint, open_checkpoint
from rackscale.engine import build
from rackscale.runtime.inline import InlineDriver
from rackscale.runtime.kernels import choose
from rackscale.runtime.rank import Rank
from rackscale.specs import DeploymentSpec, one_rank

DTYPES = {"auto": torch.float32, "fp32": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True, kw_only=True, slots=True)
class LocalOptions:
    """Sizes as `specs.one_rank` takes them; kernels and activations by their names."""

    kernels: str = "auto"
    activations: str = "auto"
    max_model_len: int | None = None
    kv_gib: float | None = None
    block_size: int
    max_batched_tokens: int
    max_running: int
    tokenizer_required: bool = True


@dataclass(frozen=True, kw_only=True, slots=True)
class LocalModel:
    """What is open: the checkpoint, how it is laid out, the rank, and the driver to run it by."""

    checkpoint: Checkpoint
    deployment: DeploymentSpec
    rank: Rank
    driver: InlineDriver


def open_local(path: Path, options: LocalOptions) -> LocalModel:
    """Load the checkpoint and build an engine of one rank over it.

    Raises SpecError where the folder is broken, or the sizes do not fit.
    """
    checkpoint = open_checkpoint(path, tokenizer_required=options.tokenizer_required)
    dtype = DTYPES[options.activations]
    deployment = one_rank(
        checkpoint.spec,
        name=path.name,
        bytes_per_element=dtype.itemsize,
        max_model_len=options.max_model_len,
        kv_gib=options.kv_gib,
        block_size=options.block_size,
        max_batched_tokens=options.max_batched_tokens,
        max_running=options.max_running,
    )
    (group,) = deployment.groups
    rank = Rank(
        checkpoint,
        num_blocks=group.num_blocks,
        block_size=deployment.block_size,
        max_running=group.max_running,
        max_model_len=deployment.max_model_len,
        dtype=dtype,
        kernels=choose(options.kernels),
    )
    driver = InlineDriver(build(deployment), rank, time.monotonic)
    return LocalModel(checkpoint=checkpoint, deployment=deployment, rank=rank, driver=driver)
