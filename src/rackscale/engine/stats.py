"""What the control plane holds right now, for gauges and tests."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class GroupStats:
    """Sums over a group's ranks. Tokens and preemptions count from the start."""

    num_waiting: int
    num_running: int
    num_blocks: int
    num_owned_blocks: int
    num_in_flight: int
    num_preempted: int
    num_queried_tokens: int  # prompt tokens looked up in the prefix index
    num_hit_tokens: int  # of these, found


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineStats:
    """One entry a group."""

    groups: tuple[GroupStats, ...]
