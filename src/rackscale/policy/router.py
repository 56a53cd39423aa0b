"""Which rank gets a request.

Source of the idea: the KV-aware routers of Dynamo and SGLang weigh what need not be computed again against
what already waits. Here both are tokens, so they add without a factor.
"""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidate:
    """What a rank offers. cached_tokens: of this prompt. queued_tokens: to be computed before it.
    num_sequences: running and waiting there."""

    cached_tokens: int
    queued_tokens: int
    num_sequences: int


def route(candidates: Sequence[Candidate]) -> int:
    """The index of the rank where the prompt is computed soonest; then the one with fewest sequences.

    candidates: at least one.
    """

    def cost(index: int) -> tuple[int, int, int]:
        candidate = candidates[index]
        return candidate.queued_tokens - candidate.cached_tokens, candidate.num_sequences, index

    return min(range(len(candidates)), key=cost)
