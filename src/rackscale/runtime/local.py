"""A model without a server: engine, ranks and checkpoint put together."""

import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from rackscale.checkpoint import Checkpoint, open_checkpoint
from rackscale.core import GroupId, RankId
from rackscale.engine import build
from rackscale.runtime.forked_ranks import ForkedRanks
from rackscale.runtime.host_model import HostModel
from rackscale.runtime.inline import InlineDriver, OneRank, Ranks
from rackscale.runtime.messages import Load
from rackscale.runtime.rank import Rank
from rackscale.specs import ONE_RANK, DeploymentSpec, PoolLayout, lay_out

RANK_LIMIT_S = 600.0


@dataclass(frozen=True, kw_only=True, slots=True)
class LocalOptions:
    """Sizes and layout as `specs.lay_out` takes them; kernels and activations by their names. router_skew:
    for tests, see `host_model.skewed`. rebalance_every: see `DeploymentSpec`."""

    layout: tuple[PoolLayout, ...] = ONE_RANK
    kernels: str = "auto"
    activations: str = "auto"
    weights: str = "auto"
    max_model_len: int | None = None
    kv_gib: float | None = None
    block_size: int
    max_batched_tokens: int
    max_running: int
    tokenizer_required: bool = True
    router_skew: float = 0.0
    rebalance_every: int = 50


@dataclass(frozen=True, kw_only=True, slots=True)
class LocalModel:
    """What is open: the checkpoint, how it is laid out, and the driver to run it by."""

    checkpoint: Checkpoint
    deployment: DeploymentSpec
    driver: InlineDriver


def open_rank(path: Path, options: LocalOptions) -> tuple[Checkpoint, DeploymentSpec, Rank]:
    """Load the checkpoint into one rank of this process, whatever the layout.

    Raises SpecError where the folder is broken, or the sizes do not fit.
    """
    num_threads = torch.get_num_threads()
    checkpoint, deployment, host = _load(path, replace(options, layout=ONE_RANK))
    torch.set_num_threads(num_threads)
    rank, _ = host.make_rank(GroupId(0), RankId(0))
    return checkpoint, deployment, rank


@contextmanager
def open_local(path: Path, options: LocalOptions) -> Iterator[LocalModel]:
    """Load the checkpoint and build an engine over it. One rank is in this process, several are forked from
    it and live as long as the context.

    Raises SpecError where the folder is broken, or the sizes do not fit.
    """
    with ExitStack() as stack:
        ranks: Ranks
        if options.layout == ONE_RANK:
            checkpoint, deployment, rank = open_rank(path, options)
            ranks = OneRank(rank)
        else:
            checkpoint, deployment, host = _load(path, options)
            ranks = stack.enter_context(closing(ForkedRanks(host, deployment)))
        engine = build(deployment)
        for number in range(len(deployment.groups)):
            placement = engine.placement(GroupId(number))
            if placement is not None:
                ranks.place(placement)
        driver = InlineDriver(engine, ranks, time.monotonic)
        yield LocalModel(checkpoint=checkpoint, deployment=deployment, driver=driver)


def _load(path: Path, options: LocalOptions) -> tuple[Checkpoint, DeploymentSpec, HostModel]:
    checkpoint = open_checkpoint(path, tokenizer_required=options.tokenizer_required)
    deployment = lay_out(
        checkpoint.spec,
        name=path.name,
        layout=options.layout,
        max_model_len=options.max_model_len,
        kv_gib=options.kv_gib,
        block_size=options.block_size,
        max_batched_tokens=options.max_batched_tokens,
        max_running=options.max_running,
    )
    deployment = replace(deployment, rebalance_every=options.rebalance_every)
    load = Load(
        path=str(path),
        deployment=deployment,
        ranks=all_ranks(deployment),
        activations=options.activations,
        weights=options.weights,
        kernels=options.kernels,
        tokenizer=options.tokenizer_required,
        wire="fp32",
        router_skew=options.router_skew,
        hang_limit_s=RANK_LIMIT_S,
    )
    return checkpoint, deployment, HostModel(load, None, lambda _done, _total: None, checkpoint)


def all_ranks(deployment: DeploymentSpec) -> tuple[tuple[GroupId, RankId], ...]:
    """Every rank of every group."""
    return tuple(
        (GroupId(group), RankId(rank))
        for group, spec in enumerate(deployment.groups)
        for rank in range(spec.num_ranks)
    )
