"""What the control plane holds right now, for gauges and tests."""

from msgspec import Struct

from rackscale.specs import Role


class RankStats(Struct, frozen=True, kw_only=True):
    """One rank's. Tokens and preemptions count from the start."""

    num_waiting: int
    num_running: int
    num_blocks: int
    num_owned_blocks: int
    num_preempted: int
    num_queried_tokens: int  # prompt tokens looked up in the prefix index
    num_hit_tokens: int  # of these, found


class ExpertStats(Struct, frozen=True, kw_only=True):
    """A group's experts. loads: recent tokens by MoE layer and expert. imbalance: see `ExpertState`."""

    loads: list[list[float]]
    imbalance: float
    num_rebalances: int
    num_moved: int


class GroupStats(Struct, frozen=True, kw_only=True):
    """One group's. role: what it does now. experts: None where one rank has all."""

    role: Role
    ranks: tuple[RankStats, ...]
    num_in_flight: int
    experts: ExpertStats | None = None

    @property
    def num_waiting(self) -> int:
        return sum(rank.num_waiting for rank in self.ranks)

    @property
    def num_running(self) -> int:
        return sum(rank.num_running for rank in self.ranks)

    @property
    def num_blocks(self) -> int:
        return sum(rank.num_blocks for rank in self.ranks)

    @property
    def num_owned_blocks(self) -> int:
        return sum(rank.num_owned_blocks for rank in self.ranks)

    @property
    def num_preempted(self) -> int:
        return sum(rank.num_preempted for rank in self.ranks)

    @property
    def num_queried_tokens(self) -> int:
        return sum(rank.num_queried_tokens for rank in self.ranks)

    @property
    def num_hit_tokens(self) -> int:
        return sum(rank.num_hit_tokens for rank in self.ranks)


class EngineStats(Struct, frozen=True, kw_only=True):
    """One entry a group."""

    groups: tuple[GroupStats, ...]
