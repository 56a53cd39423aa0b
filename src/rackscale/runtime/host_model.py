"""What a host has loaded, and the ranks that it can be."""

import importlib
import os
import socket
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, TypedDict

import torch

from rackscale.checkpoint import Checkpoint, open_checkpoint
from rackscale.core import GroupId, RankId, RankLostError, SpecError
from rackscale.runtime.comm.all_to_all import AllToAll
from rackscale.runtime.comm.heap import Heap
from rackscale.runtime.comm.team import Team
from rackscale.runtime.comm.wire import Wire
from rackscale.runtime.kernels import MoeWeights, choose
from rackscale.runtime.kv_cache import KvCache, KvLayers, KvShape
from rackscale.runtime.messages import Load, Loaded, Meet, read_frame, unframe
from rackscale.runtime.model import LoadedModel, load_model, share_model
from rackscale.runtime.rank import Rank
from rackscale.runtime.rank_process import run_rank, threads_for, warm_up_plan
from rackscale.runtime.transfer.choose import ChosenTransfer
from rackscale.runtime.transfer.shared_memory import SharedTransfer
from rackscale.runtime.transfer.split import KvSplit
from rackscale.runtime.transfer.transfer import Transfer
from rackscale.specs import DeploymentSpec, GroupSpec, MoeSpec, Role, share_heads

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

    from rackscale.runtime.network import Network
    from rackscale.runtime.transfer.wire import Caller

PREFILL_NICENESS = (
    10  # where cores are shared, those who read tokens come before those who wait for their first
)
NOBODY_TO_MEET = Meet(addresses=())
TRANSFER_SHARE = 0.25  # of the time after which a rank counts as hanging: it may take three times its limit


class _Sizes(TypedDict):
    """What every all-to-all has to know."""

    hidden: int
    top_k: int
    wire: Wire
    limit_s: float


class _Memory(TypedDict):
    """And those through memory."""

    capacity: int
    spin_s: float


class HostModel:
    """A model in memory, KV caches for the ranks that this host has, and a heap for each of its groups.

    All of it is mapped by all ranks, which are forked from here. KV caches stay when a group is started
    again: a rank that lives may still write to one, and what it writes is not read (see
    engine/group_state.py). Raises SpecError where the checkpoint is broken, CapacityError where memory cannot
    be had.
    """

    def __init__(
        self,
        load: Load,
        path: Path | None,
        progress: Callable[[int, int], None],
        checkpoint: Checkpoint | None = None,
    ) -> None:
        """checkpoint: that of the path, by who has opened it already."""
        self._load = load
        for number, group in enumerate(load.deployment.groups):
            _check_teams(GroupId(number), group.tp, load.ranks)
        torch.set_num_threads(1)  # a pool of threads would not survive a fork
        if checkpoint is None:
            checkpoint = open_checkpoint(_path(load, path), tokenizer_required=load.tokenizer)
        self._model = load_model(
            checkpoint,
            activations=load.activations,
            weights=load.weights,
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
        self._shares = {group.tp: share_model(self._model, group.tp) for group in load.deployment.groups}
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
        hosts = self._hosts_of(group)
        if spec.num_ranks > 1 and moe is not None and max(map(len, hosts)) > 1:
            here = self.ranks_of(group)
            self._heaps[group] = Heap(len(here), self._segment_bytes(spec, moe, hosts, here))
        if spec.tp > 1:
            self._team_heaps[group] = Heap(spec.num_ranks, self._team_bytes(spec))

    def _hosts_of(self, group: GroupId) -> list[list[RankId]]:
        """The group's ranks, by the host that they are on."""
        everywhere = [ranks for _, ranks in self._load.hosts] or [self._load.ranks]
        ranks_H = [[rank for its_group, rank in ranks if its_group == group] for ranks in everywhere]
        return [ranks for ranks in ranks_H if ranks]

    def open_network(self, connection: socket.socket, group: GroupId, rank: RankId, incarnation: int) -> str:
        """In a child: have ranks of other hosts reach it, where there are any. Gives its address, or "".
        connection: to the engine, by an address that the others can reach too."""
        if not self._load.hosts:
            return ""
        from rackscale.runtime.network import Network  # noqa: PLC0415 (torch.distributed takes its time)
        from rackscale.runtime.transfer.wire import Caller  # noqa: PLC0415 (the same)

        self._network = Network(connection.getsockname()[0])
        self._caller = Caller(group=group, rank=rank, incarnation=incarnation)
        return self._network.address

    def be_rank(self, connection: socket.socket, group: GroupId, rank: RankId) -> None:
        """In a child: be that rank until the engine is gone."""
        if self._group(group).role is Role.PREFILL:
            os.nice(PREFILL_NICENESS)
        torch.set_num_threads(self._num_threads)
        run_rank(connection, lambda stream: self.make_rank(group, rank, self._meet(stream, group)))

    def _meet(self, stream: BinaryIO, group: GroupId) -> Meet:
        """Where the group's other ranks are, which somebody on another host has to know."""
        if len(self._hosts_of(group)) == 1:
            return Meet(addresses=())
        body = read_frame(stream)
        if body is None:
            raise ConnectionError("the engine is gone")
        meet: Meet = unframe(body, Meet)
        return meet

    def make_rank(
        self, group: GroupId, rank: RankId, meet: Meet = NOBODY_TO_MEET
    ) -> tuple[Rank, AllToAll | None]:
        """The rank, and its end of the all-to-all where it has one."""
        deployment, spec = self._load.deployment, self._group(group)
        ranks, team = self._all_to_all(group, rank, meet), self._team(group, rank)
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
        from rackscale.runtime.transfer.inbox import Inbox  # noqa: PLC0415 (the same)

        limit_s = self._load.hang_limit_s * TRANSFER_SHARE
        inbox = Inbox(self._network, layers, limit_s)
        far = GlooTransfer(self._network, self._caller, inbox, limit_s, split)
        return ChosenTransfer(self._seats, near, far)

    def _all_to_all(self, group: GroupId, rank: RankId, meet: Meet) -> AllToAll | None:
        spec, moe, hosts = self._group(group), self._model.spec.moe, self._hosts_of(group)
        if spec.num_ranks == 1 or moe is None:
            return None
        sizes: _Sizes = {
            "hidden": self._model.spec.hidden,
            "top_k": moe.router.top_k,
            "wire": Wire(self._load.wire),
            "limit_s": self._load.hang_limit_s,
        }
        members = self._join(group, rank, meet) if len(hosts) > 1 else None
        heap = self._heaps.get(group)
        if heap is None:
            assert members is not None, "ranks of one host share memory"
            from rackscale.runtime.comm.gloo import GlooAllToAll  # noqa: PLC0415 (see `open_network`)

            return GlooAllToAll(members, **sizes)
        from rackscale.runtime.comm.shared_memory import SharedAllToAll  # noqa: PLC0415 (needs C++)

        memory: _Memory = {"capacity": spec.max_batched_tokens, "spin_s": self._spin_s}
        if members is None:
            return SharedAllToAll(rank, heap.addresses, exact=self._is_exact, **sizes, **memory)
        from rackscale.runtime.comm.hierarchical import HierarchicalAllToAll  # noqa: PLC0415 (needs C++)

        return HierarchicalAllToAll(hosts, members, heap.addresses, **sizes, **memory)

    def _join(self, group: GroupId, rank: RankId, meet: Meet) -> "ProcessGroup":
        """All ranks of the group, over the network. Raises RankLostError where one does not come."""
        from rackscale.runtime.network import NETWORK_ERRORS, within  # noqa: PLC0415 (see `open_network`)

        network, caller = self._network, self._caller
        assert network is not None, "a rank that is to be met has an address"
        assert caller is not None, "and a name"
        limit_s, name = self._load.hang_limit_s, f"group/{group}/{caller.incarnation}"

        def join() -> "ProcessGroup":
            store = network.store(meet.addresses[0], limit_s)
            return network.group(store, name, rank, len(meet.addresses), limit_s)

        try:
            return within(limit_s, join)
        except NETWORK_ERRORS as error:
            what = (
                f"rank {rank} of group {group} does not meet the others ({str(error).partition(chr(10))[0]})"
            )
            raise RankLostError(what, hint="see whether their hosts reach each other") from None

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

    def _segment_bytes(
        self, group: GroupSpec, moe: MoeSpec, hosts: list[list[RankId]], here: list[RankId]
    ) -> int:
        try:
            from rackscale.runtime.comm.shared_memory import domain_bytes  # noqa: PLC0415 (needs C++)
        except ImportError as error:
            raise _not_built(group, error) from None
        capacity = group.max_batched_tokens
        if len(hosts) > 1:
            from rackscale.runtime.comm.hierarchical import relayed_capacity  # noqa: PLC0415 (needs C++)

            capacity = relayed_capacity(hosts, hosts.index(here), capacity)
        return domain_bytes(
            len(here),
            self._model.spec.hidden,
            moe.router.top_k,
            capacity,
            Wire(self._load.wire),
            exact=self._is_exact and len(hosts) == 1,
        )

    @property
    def _is_exact(self) -> bool:
        """Whether sums come back in doubles: where nothing else is rounded on the way."""
        return self._load.wire == Wire.FP32

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
    """For tests: routers that like the n-th expert less, by skew * ln n, so that loads fall as Zipf's law has
    it."""
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
