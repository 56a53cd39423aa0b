"""What a host has loaded, and the ranks that it can be."""

import importlib
import os
import socket
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from rackscale.checkpoint import open_checkpoint
from rackscale.core import GroupId, RankId, SpecError
from rackscale.runtime.comm.all_to_all import AllToAll
from rackscale.runtime.comm.heap import Heap
from rackscale.runtime.comm.team import Team
from rackscale.runtime.comm.wire import Wire
from rackscale.runtime.dtypes import DTYPES
from rackscale.runtime.kernels import MoeWeights, choose
from rackscale.runtime.kv_cache import KvCache, KvLayers, KvShape
from rackscale.runtime.messages import Load, Loaded
from rackscale.runtime.model import LoadedModel, load_model, share_model
from rackscale.runtime.rank import Rank
from rackscale.runtime.rank_process import run_rank, threads_for, warm_up_plan
from rackscale.runtime.transfer.choose import ChosenTransfer
from rackscale.runtime.transfer.shared_memory import SharedTransfer
from rackscale.runtime.transfer.split import KvSplit
from rackscale.runtime.transfer.transfer import Transfer
from rackscale.specs import DeploymentSpec, GroupSpec, MoeSpec, share_heads

if TYPE_CHECKING:
    from rackscale.runtime.network import Network
    from rackscale.runtime.transfer.wire import Caller

TRANSFER_SHARE = 0.25  # of the time after which a rank counts as hanging: it may take three times its limit


class HostModel:
    """A model in memory, KV caches for the ranks that this host has, and a heap for each of its groups.

    All of it is mapped by all ranks, which are forked from here. KV caches stay when a group is started
    again: a rank that lives may still write to one, and what it writes is not read (see
    engine/group_state.py). Raises SpecError where the checkpoint is broken, CapacityError where memory cannot
    be had.
    """

    def __init__(self, load: Load, path: Path | None, progress: Callable[[int, int], None]) -> None:
        self._load = load
        for number, group in enumerate(load.deployment.groups):
            _check_teams(GroupId(number), group.tp, load.ranks)
        torch.set_num_threads(1)  # a pool of threads would not survive a fork
        checkpoint = open_checkpoint(_path(load, path), tokenizer_required=load.tokenizer)
        self._model = load_model(
            checkpoint,
            dtype=DTYPES[load.activations],
            kernels=choose(load.kernels),
            max_positions=load.deployment.max_model_len,
            progress=progress,
        )
        if load.router_skew:
            self._model = skewed(self._model, load.router_skew)
        tokenizer = checkpoint.tokenizer
        self._tokenizer_path = None if tokenizer is None else tokenizer.path
        self._num_weight_bytes = checkpoint.metadata.num_bytes
        # Copies are made before ranks are forked, so that these share them.
        self._shares = {
            group.tp: share_model(self._model, group.tp) for group in load.deployment.groups
        }
        (self._model, *_), *_ = self._shares.values()  # nobody needs the whole where all have a share
        self._caches = self._make_caches(load.deployment)
        self._heaps: dict[GroupId, Heap] = {}
        self._network: Network | None = None
        self._caller: Caller | None = None
        if load.hosts:
            importlib.import_module("rackscale.runtime.network")  # once, for all ranks that are forked
        self._team_heaps: dict[GroupId, Heap] = {}

    def fits(self, load: Load) -> bool:
        """Whether this is what would be loaded."""
        return load == self._load

    def loaded(self) -> Loaded:
        """What to tell the engine."""
        return Loaded(
            kernels=self._model.kernels.name,
            num_threads=self._num_threads,
            num_weight_bytes=self._num_weight_bytes,
        )

    def ranks_of(self, group: GroupId) -> list[RankId]:
        """Those that this host has."""
        return [rank for its_group, rank in self._load.ranks if its_group == group]

    def renew(self, group: GroupId) -> None:
        """A new heap for a group that starts, so that nothing of its last life is in it."""
        spec, moe = self._group(group), self._model.spec.moe
        if spec.num_ranks > 1 and moe is not None:
            self._heaps[group] = Heap(spec.num_ranks, self._segment_bytes(spec, moe))
        if spec.tp > 1:
            self._team_heaps[group] = Heap(spec.num_ranks, self._team_bytes(spec))

    def open_network(
        self, connection: socket.socket, group: GroupId, rank: RankId, incarnation: int
    ) -> str:
        """In a child: have ranks of other hosts reach it, where there are any. Gives its address, or "".
        connection: to the engine, by an address that the others can reach too."""
        if not self._load.hosts:
            return ""
        from rackscale.runtime.network import Network  # noqa: PLC0415 (torch.distributed takes its time)
        from rackscale.runtime.transfer.wire import Caller  # noqa: PLC0415

        self._network = Network(connection.getsockname()[0])
        self._caller = Caller(group=group, rank=rank, incarnation=incarnation)
        return self._network.address

    def be_rank(self, connection: socket.socket, group: GroupId, rank: RankId) -> None:
        """In a child: be that rank until the engine is gone."""
        torch.set_num_threads(self._num_threads)
        run_rank(connection, lambda _stream: self.make_rank(group, rank))

    def make_rank(self, group: GroupId, rank: RankId) -> tuple[Rank, AllToAll | None]:
        """The rank, and its end of the all-to-all where it has one."""
        deployment, spec = self._load.deployment, self._group(group)
        ranks, team = self._all_to_all(group, rank), self._team(group, rank)
        attention, member = self._model.spec.attention, rank % spec.tp
        made = Rank(
            self._shares[spec.tp][member],
            KvCache(
                self._caches[group, rank],
                block_size=deployment.block_size,
                max_running=spec.max_running,
                max_model_len=deployment.max_model_len,
            ),
            max_model_len=deployment.max_model_len,
            tokenizer_path=self._tokenizer_path,
            ranks=ranks,
            team=team,
            transfer=self._transfer(
                self._caches[group, rank],
                KvSplit(
                    attention=attention,
                    own=share_heads(attention, spec.tp, member),
                    tps=[other.tp for other in deployment.groups],
                ),
            ),
        )
        if ranks is None and team is None:
            made.step(warm_up_plan())
        return made, ranks

    @property
    def _seats(self) -> set[tuple[GroupId, RankId]]:
        """Those of this host, as pushes name them."""
        return {(group, RankId(rank // self._group(group).tp)) for group, rank in self._load.ranks}

    def _transfer(self, layers: KvLayers, split: KvSplit) -> Transfer:
        near = SharedTransfer(self._caches, split)
        if self._network is None or self._caller is None:
            return near
        from rackscale.runtime.transfer.gloo import GlooTransfer  # noqa: PLC0415 (see `open_network`)
        from rackscale.runtime.transfer.inbox import Inbox  # noqa: PLC0415

        limit_s = self._load.hang_limit_s * TRANSFER_SHARE
        inbox = Inbox(self._network, layers, limit_s)
        far = GlooTransfer(self._network, self._caller, inbox, limit_s, split)
        return ChosenTransfer(self._seats, near, far)

    def _all_to_all(self, group: GroupId, rank: RankId) -> AllToAll | None:
        heap, moe = self._heaps.get(group), self._model.spec.moe
        if heap is None or moe is None:
            return None
        from rackscale.runtime.comm.shared_memory import SharedAllToAll  # noqa: PLC0415 (needs C++)

        return SharedAllToAll(
            rank,
            heap.addresses,
            hidden=self._model.spec.hidden,
            top_k=moe.router.top_k,
            capacity=self._group(group).max_batched_tokens,
            wire=Wire(self._load.wire),
            spin_s=self._spin_s,
            limit_s=self._load.hang_limit_s,
        )

    def _team(self, group: GroupId, rank: RankId) -> Team | None:
        heap, tp = self._team_heaps.get(group), self._group(group).tp
        if heap is None:
            return None
        from rackscale.runtime.comm.shared_team import SharedTeam  # noqa: PLC0415 (needs C++)

        first = rank - rank % tp
        return SharedTeam(
            rank - first,
            heap.addresses[first : first + tp],
            spin_s=self._spin_s,
            limit_s=self._load.hang_limit_s,
        )

    def _team_bytes(self, group: GroupSpec) -> int:
        try:
            from rackscale.runtime.comm.shared_team import team_bytes  # noqa: PLC0415 (needs C++)
        except ImportError as error:
            raise _not_built(group, error) from None
        return team_bytes()

    @property
    def _spin_s(self) -> float:
        from rackscale.runtime.comm.shared_memory import SPIN_S  # noqa: PLC0415 (needs C++)

        return SPIN_S if len(self._load.ranks) <= len(os.sched_getaffinity(0)) else 0.0

    def _segment_bytes(self, group: GroupSpec, moe: MoeSpec) -> int:
        try:
            from rackscale.runtime.comm.shared_memory import domain_bytes  # noqa: PLC0415 (needs C++)
        except ImportError as error:
            raise _not_built(group, error) from None
        return domain_bytes(
            group.num_ranks,
            self._model.spec.hidden,
            moe.router.top_k,
            group.max_batched_tokens,
            Wire(self._load.wire),
        )

    def _make_caches(self, deployment: DeploymentSpec) -> dict[tuple[GroupId, RankId], KvLayers]:
        caches = {}
        for group, rank in self._load.ranks:
            shape = KvShape(
                model=self._model.spec,
                num_blocks=deployment.groups[group].num_blocks,
                block_size=deployment.block_size,
                dtype=self._model.dtype,
                tp=deployment.groups[group].tp,
            )
            (segment,) = Heap(1, shape.num_bytes).segments
            caches[group, rank] = shape.layers(segment)
        return caches

    def _group(self, group: GroupId) -> GroupSpec:
        return self._load.deployment.groups[group]

    @property
    def _num_threads(self) -> int:
        return threads_for(self._num_weight_bytes, len(self._load.ranks))


def _not_built(group: GroupSpec, error: ImportError) -> SpecError:
    return SpecError(
        f"{group.num_ranks} ranks need the native part, which is not built ({error})",
        hint="install with a C++ compiler and CMake at hand, or run one rank",
    )


def _check_teams(group: GroupId, tp: int, ranks: Sequence[tuple[GroupId, RankId]]) -> None:
    """A team shares memory. ranks: of this host."""
    sizes = Counter(rank // tp for its_group, rank in ranks if its_group == group)
    for team, size in sizes.items():
        if size != tp:
            raise SpecError(
                f"ranks {team * tp} to {team * tp + tp - 1} of group {group} share an attention, and are on"
                " several hosts",
                hint="give each host a multiple of tp ranks",
            )


def _path(load: Load, own: Path | None) -> Path:
    if own is not None:
        return own
    if load.path is None:
        raise SpecError(
            "this host does not know where the model is", hint="give its folder to `rackscale host`"
        )
    return Path(load.path)


def skewed(model: LoadedModel, skew: float) -> LoadedModel:
    """For tests: routers that like the n-th expert less, by skew * ln n, so that loads fall as Zipf's law has it."""
    layers = []
    for layer in model.weights.layers:
        ffn = layer.ffn
        if isinstance(ffn, MoeWeights):
            num_experts = ffn.spec.router.num_experts
            bias = -skew * torch.arange(1, num_experts + 1, dtype=torch.float32).log()
            correction = bias if ffn.correction_E is None else ffn.correction_E + bias
            ffn = replace(ffn, correction_E=correction)
        layers.append(replace(layer, ffn=ffn))
    return replace(model, weights=replace(model.weights, layers=tuple(layers)))
