"""One request that arrives."""

from dataclasses import dataclass

BLOCK_TOKENS = 512  # of the Mooncake traces' hashes


@dataclass(frozen=True, slots=True)
class Arrival:
    """A request of num_prompt tokens that arrives at_s after the start and is answered with num_output.

    blocks: an id for each BLOCK_TOKENS of the prompt from its first token on, the last perhaps not full.
    Equal ids stand for equal tokens after an equal prefix; () shares nothing. priority: lower goes first.
    """

    at_s: float
    num_prompt: int
    num_output: int
    blocks: tuple[int, ...] = ()
    priority: int = 0
