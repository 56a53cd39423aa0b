"""Pools of groups of ranks that serve one model: what is decided once, before the first request."""

from dataclasses import dataclass
from enum import StrEnum


class Role(StrEnum):
    """What a group does."""

    MIXED = "mixed"
    PREFILL = "prefill"
    DECODE = "decode"


@dataclass(frozen=True, kw_only=True, slots=True)
class GroupSpec:
    """A group, and what each of its ranks holds.

    num_ranks: the width of expert parallelism. tp: so many ranks next to each other share one attention:
    they have the same rows, and the heads between them. num_blocks: KV blocks of each attention.
    max_running: rows of each. max_batched_tokens: the token budget of each one's step. redundant_experts:
    slots beyond one for each expert, in all ranks together.
    """

    role: Role = Role.MIXED
    num_ranks: int = 1
    tp: int = 1
    redundant_experts: int = 0
    num_blocks: int
    max_running: int
    max_batched_tokens: int

    @property
    def num_seats(self) -> int:
        """Ranks that have rows of their own."""
        return self.num_ranks // self.tp


@dataclass(frozen=True, kw_only=True, slots=True)
class DeploymentSpec:
    """All that an `Engine` is built from.

    max_model_len: prompt and output together, tokens. max_waiting: requests that may queue; more
    are refused. max_in_flight: steps that a group may have been given and not yet answered.
    num_moe_layers, num_experts: of the model, 0 where it has none. rebalance_every: steps between two looks
    at whether experts should move; 0: they stay.
    """

    model: str
    groups: tuple[GroupSpec, ...]
    block_size: int = 16
    max_model_len: int
    max_waiting: int = 1024
    max_in_flight: int = 2
    num_moe_layers: int = 0
    num_experts: int = 0
    rebalance_every: int = 50
