"""Which rank gets a request.

Two things make a rank a worse choice: what it has to compute before the prompt is done (its queue and the
part of the prompt that its cache lacks), and what it has to read in every later step (the KV of those who
live there). Both are tokens, so they add without a factor.

Source: the KV-aware router of Dynamo, whose cost is the blocks to prefill plus the blocks that are active.
"""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidate:
    """What a rank offers. cached_tokens: of this prompt. queued_tokens: to be computed before it.
    resident_tokens: whose KV is owned there. num_sequences: running and waiting there."""

    cached_tokens: int
    queued_tokens: int
    resident_tokens: int
    num_sequences: int

    @property
    def cost(self) -> tuple[int, int]:
        """Tokens, up to the prompt's length, which is the same everywhere; then sequences."""
        return self.queued_tokens - self.cached_tokens + self.resident_tokens, self.num_sequences


def route(candidates: Sequence[Candidate]) -> int:
    """The index of the cheapest of the candidates, the first among equals. There is at least one."""
    return min(range(len(candidates)), key=lambda index: candidates[index].cost)
