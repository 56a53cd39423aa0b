"""A fixed number of requests in flight."""

from collections.abc import Iterator
from dataclasses import dataclass

from rackscale.simulate.load.lengths import Lengths
from rackscale.simulate.load.limits import at_least


@dataclass(frozen=True, kw_only=True, slots=True)
class ClosedLoad:
    """num_requests of which concurrency are in flight: the next is sent as one ends.

    When it is sent is the driver's to say. Raises SpecError below one.
    """

    concurrency: int
    num_requests: int
    lengths: Lengths

    def __post_init__(self) -> None:
        at_least("a concurrency", self.concurrency, 1)
        at_least("a number of requests", self.num_requests, 1)

    def requests(self, *, seed: int) -> Iterator[tuple[int, int]]:
        """Tokens of prompt and answer in the order of sending."""
        num_prompt, num_output = self.lengths.draw(self.num_requests, seed).T.tolist()
        return zip(num_prompt, num_output, strict=True)
