"""What became of one request, and when."""

from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise

from rackscale.core import RequestId, Seconds


class Outcome(StrEnum):
    """How a request ended."""

    FINISHED = "finished"
    CANCELLED = "cancelled"
    REFUSED = "refused"
    LOST = "lost"  # accepted, and neither finished nor cancelled when the record ends


@dataclass(frozen=True, kw_only=True, slots=True)
class RequestRecord:
    """Times by the driver's clock. token_times_s: when each output token came, in order.
    ended_s None: it was lost. num_cached: prompt tokens whose KV was there."""

    id: RequestId
    outcome: Outcome
    arrived_s: Seconds
    ended_s: Seconds | None
    token_times_s: tuple[Seconds, ...]
    num_prompt: int
    num_cached: int

    @property
    def num_output(self) -> int:
        return len(self.token_times_s)

    @property
    def ttft_s(self) -> float | None:
        """Arrival to first token; None where none came."""
        return self.token_times_s[0] - self.arrived_s if self.token_times_s else None

    @property
    def tpot_s(self) -> float | None:
        """Mean time per output token after the first; None where there was one at most."""
        if self.num_output < 2:
            return None
        return (self.token_times_s[-1] - self.token_times_s[0]) / (self.num_output - 1)

    @property
    def gaps_s(self) -> tuple[float, ...]:
        """Between each token and the next: the inter-token latencies."""
        return tuple(later - earlier for earlier, later in pairwise(self.token_times_s))
