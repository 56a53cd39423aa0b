"""What a client asks for, checked and in tokens. One request is one sequence: n choices are n
requests, of which all but the first name the first as `sibling_of`."""

from enum import StrEnum

from msgspec import Struct

from rackscale.core.ids import RequestId, TokenId


class GuideKind(StrEnum):
    """The language in which a structured output is described."""

    JSON_SCHEMA = "json_schema"
    REGEX = "regex"
    CHOICE = "choice"  # `source` is a JSON list of strings
    GRAMMAR = "grammar"  # Lark


class Guide(Struct, frozen=True, kw_only=True):
    """A language that the output must belong to."""

    kind: GuideKind
    source: str


class Sampling(Struct, frozen=True, kw_only=True):
    """How the next token is drawn. Ranges are checked where requests enter, in `serve` and `cli`.

    The draw at position p of the sequence depends on (seed, p) and the logits alone, so the same
    seed gives the same text in any batch, and after any preemption.
    """

    temperature: float = 1.0  # 0: greedy
    top_k: int = 0  # 0: all tokens
    top_p: float = 1.0
    min_p: float = 0.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    logit_bias: dict[TokenId, float] = {}
    seed: int = 0
    num_logprobs: int | None = None  # None: none; 0: the sampled token's; k: and the k best
    guide: Guide | None = None


class Request(Struct, frozen=True, kw_only=True):
    """One sequence to complete.

    prompt: at least one token. max_tokens: at least 1. stop_token_ids: what ends the output, the
    model's own end tokens included unless the client ignores them; none is drawn before
    `min_tokens` are out. priority: lower goes first. sibling_of: a request with the same prompt
    whose prompt blocks this one waits for and shares.
    """

    id: RequestId
    prompt: tuple[TokenId, ...]
    max_tokens: int
    min_tokens: int = 0
    stop_token_ids: tuple[TokenId, ...] = ()
    sampling: Sampling = Sampling()
    priority: int = 0
    sibling_of: RequestId | None = None
