"""Which values a request's sampling parameters may have. Torch-free: checked where requests enter."""

import math
from dataclasses import dataclass
from typing import Final

from rackscale.core import Sampling, SpecError

MAX_LOGPROBS: Final = 20  # the OpenAI API's limit
_INT64: Final = 1 << 63


@dataclass(frozen=True, kw_only=True, slots=True)
class Range:
    """Finite values from low to high; `open_low`: without low itself."""

    low: float
    high: float = math.inf
    open_low: bool = False

    def holds(self, value: float) -> bool:
        """Whether the value is in the range; NaN is in none."""
        above = value > self.low if self.open_low else value >= self.low
        return math.isfinite(value) and above and value <= self.high

    def __str__(self) -> str:
        low = f"above {self.low:g}" if self.open_low else f"of at least {self.low:g}"
        high = "" if math.isinf(self.high) else f" and at most {self.high:g}"
        return f"a finite number {low}{high}"


_PENALTY: Final = Range(low=-2.0, high=2.0)  # the OpenAI API's limits
_BIAS: Final = Range(low=-100.0, high=100.0)  # likewise
_RANGES: Final = {
    "temperature": Range(low=0.0),
    "top_k": Range(low=-1),
    "top_p": Range(low=0.0, high=1.0, open_low=True),
    "min_p": Range(low=0.0, high=1.0),
    "presence_penalty": _PENALTY,
    "frequency_penalty": _PENALTY,
    "repetition_penalty": Range(low=0.0, open_low=True),
}


def validate_sampling(sampling: Sampling, *, vocab_size: int) -> None:
    """Refuse parameters out of their ranges, and tokens out of the vocabulary.

    Raises SpecError naming the parameter, its value and what to give instead. A guide has its own
    check, `check_guide`.
    """
    for name, allowed in _RANGES.items():
        _require(allowed, name, getattr(sampling, name))
    if not -_INT64 <= sampling.seed < _INT64:
        raise SpecError(f"seed is {sampling.seed}", hint="give a signed integer of 64 bits")
    if sampling.num_logprobs is not None and not 0 <= sampling.num_logprobs <= MAX_LOGPROBS:
        raise SpecError(
            f"log-probabilities of {sampling.num_logprobs} tokens are asked for",
            hint=f"ask for 0 to {MAX_LOGPROBS}",
        )
    for token, bias in sampling.logit_bias.items():
        if not 0 <= token < vocab_size:
            raise SpecError(
                f"logit_bias names token {token}",
                hint=f"the vocabulary has the tokens 0 to {vocab_size - 1}",
            )
        _require(_BIAS, f"logit_bias of token {token}", bias)


def _require(allowed: Range, name: str, value: float) -> None:
    if not allowed.holds(value):
        raise SpecError(f"{name} is {value}", hint=f"give {allowed}")
