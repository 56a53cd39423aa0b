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

    num_ranks: the width of expert parallelism. num_blocks: KV blocks of each rank. max_running: rows
    of each rank. max_batched_tokens: the token budget of each rank's step.
    """

    role: Role = Role.MIXED
    num_ranks: int = 1
    num_blocks: int
    max_running: int
    max_batched_tokens: int


@dataclass(frozen=True, kw_only=True, slots=True)
class DeploymentSpec:
    """All that an `Engine` is built from.

    max_model_len: prompt and output together, tokens. max_waiting: requests that may queue; more
    are refused. max_in_flight: steps that a group may have been given and not yet answered.
    """

    model: str
    groups: tuple[GroupSpec, ...]
    block_size: int = 16
    max_model_len: int
    max_waiting: int = 1024
    max_in_flight: int = 2
