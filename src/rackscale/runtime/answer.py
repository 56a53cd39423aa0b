"""What a rank hands back for a step: the engine's part, and what the engine does not carry."""

from collections.abc import Sequence

from msgspec import Struct
from msgspec.structs import replace

from rackscale.core import RankResult, TokenId


class TokenLogprobs(Struct, frozen=True, kw_only=True):
    """Log-probabilities of one sampled token.

    sample: its index in `RankResult.tokens`. top: the best tokens with theirs, best first.
    """

    sample: int
    logprob: float
    top: tuple[tuple[TokenId, float], ...] = ()


class StepTimes(Struct, frozen=True, kw_only=True):
    """Where a rank's step went: seconds in all, of these waiting for other ranks and copying to them; bytes
    sent to other ranks' experts, and bytes of KV pushed to other pools."""

    step_s: float = 0.0
    wait_s: float = 0.0
    copy_s: float = 0.0
    num_sent_bytes: int = 0
    num_pushed_bytes: int = 0


class RankAnswer(Struct, frozen=True, kw_only=True):
    """A rank's answer to one `RankPlan`. logprobs: of those samples whose request wants them."""

    result: RankResult
    logprobs: tuple[TokenLogprobs, ...] = ()
    times: StepTimes = StepTimes()


def joined_logprobs(answers: Sequence[RankAnswer]) -> list[TokenLogprobs]:
    """Of all ranks of a step, with samples counted over all of them, as `Emit` does."""
    joined, first = [], 0
    for answer in answers:
        joined += [replace(entry, sample=entry.sample + first) for entry in answer.logprobs]
        first += len(answer.result.tokens)
    return joined
