"""The rack as it is right now: what `GET /rack/state` answers, `rackscale top` prints and `/rack` draws."""

from enum import StrEnum

from msgspec import Struct


class RankStatus(StrEnum):
    """Whether a rank can work."""

    STARTING = "starting"
    UP = "up"
    LOST = "lost"


class RankView(Struct, frozen=True, kw_only=True):
    """One rank. Tokens are those it computed, prompts' and sampled ones; rates are over the last second.
    compute_share, wait_share, copy_share: of its steps' time, by what it went into; they sum to at most 1."""

    rank: int
    host: str
    pid: int
    status: RankStatus
    num_running: int
    num_waiting: int
    num_blocks: int
    num_used_blocks: int
    tokens_per_s: float
    num_restarts: int
    compute_share: float = 0.0
    wait_share: float = 0.0
    copy_share: float = 0.0


class GroupView(Struct, frozen=True, kw_only=True):
    """One group. role: prefill, decode or mixed. step_s: mean over the last second, 0 if there was none.
    imbalance: tokens of the busiest rank over the mean rank's, from the experts' recent loads; 1 is even."""

    group: int
    role: str
    tp: int
    ranks: list[RankView]
    num_steps: int
    step_s: float
    imbalance: float


class ExpertsView(Struct, frozen=True, kw_only=True):
    """Recent tokens by MoE layer and expert (they fade with time), and how often experts were moved."""

    loads: list[list[float]]
    num_rebalances: int
    num_moved_experts: int


class TransfersView(Struct, frozen=True, kw_only=True):
    """KV on its way from pool to pool. Rates are over the last second."""

    num_in_flight: int
    num_moved: int
    num_failed: int
    num_bytes: int
    bytes_per_s: float


class RackEvent(Struct, frozen=True, kw_only=True):
    """Something worth a line: a rank lost or back, a rebalance, a change of role. time_s: Unix time."""

    time_s: float
    what: str


class RackState(Struct, frozen=True, kw_only=True):
    """All of it. time_s: Unix time at which it was taken. tokens_per_s: sampled tokens. events: the last
    ones, the newest first."""

    model: str
    time_s: float
    uptime_s: float
    num_running: int
    num_waiting: int
    num_finished: int
    tokens_per_s: float
    groups: list[GroupView]
    experts: ExpertsView
    transfers: TransfersView
    events: list[RackEvent]
