"""What a rank hands back for a step: the engine's part, and what the engine does not carry."""

from msgspec import Struct

from rackscale.core import RankResult, TokenId


class TokenLogprobs(Struct, frozen=True, kw_only=True):
    """Log-probabilities of one sampled token.

    sample: its index in `RankResult.tokens`. top: the best tokens with theirs, best first.
    """

    sample: int
    logprob: float
    top: tuple[tuple[TokenId, float], ...] = ()


class RankAnswer(Struct, frozen=True, kw_only=True):
    """A rank's answer to one `RankPlan`. logprobs: of those samples whose request wants them."""

    result: RankResult
    logprobs: tuple[TokenLogprobs, ...] = ()
