"""What each row asks of its next token: one column a parameter, so that a step reads rows at once.

Columns live on the host: which features a batch has is decided without waiting for the device.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from rackscale.core import IntColumn, Request, Sampling, TokenId
from rackscale.runtime.sampling.uniform import stream_key

# Bits of `features`. A batch without a bit skips that part whole.
DRAWN: Final = 1  # not greedy
FILTERED: Final = 2  # top-k, top-p or min-p
BIASED: Final = 4
PENALISED: Final = 8
HELD: Final = 16  # min_tokens not reached
GUIDED: Final = 32
LOGPROBS: Final = 64
EDITED: Final = BIASED | PENALISED | HELD | GUIDED  # the logits are changed before the draw

# Below it, greedy: logits divided by less overflow. Source: vLLM, v1/sample/sampler.py,
# _SAMPLING_EPS.
GREEDY_BELOW: Final = 1e-5

FloatColumn = npt.NDArray[np.float32]
Indices = npt.NDArray[np.signedinteger]  # places in a batch


@dataclass(frozen=True, kw_only=True, slots=True)
class FilterColumns:
    """Temperature and filters of the rows of one draw, in the batch's order.

    top_k: V keeps all.
    """

    temperature: FloatColumn
    top_k: IntColumn
    top_p: FloatColumn
    min_p: FloatColumn


@dataclass(frozen=True, kw_only=True, slots=True)
class PenaltyColumns:
    """Penalties of some rows, in the batch's order."""

    presence: FloatColumn
    frequency: FloatColumn
    repetition: FloatColumn


class RowTable:
    """The parameters of `max_running` rows over a vocabulary of V tokens."""

    def __init__(self, *, max_running: int, vocab_size: int) -> None:
        self._vocab_size = vocab_size
        self.features = np.zeros(max_running, np.uint8)
        self.stream_keys = np.zeros(max_running, np.uint64)
        self.hold_until = np.zeros(max_running, np.int32)  # first position free of min_tokens
        self.num_logprobs = np.zeros(max_running, np.int32)
        self.fallback = np.zeros(max_running, np.int32)  # the token of a row without a choice
        self._temperature = np.ones(max_running, np.float32)
        self._top_k = np.full(max_running, vocab_size, np.int32)
        self._top_p = np.ones(max_running, np.float32)
        self._min_p = np.zeros(max_running, np.float32)
        self._presence = np.zeros(max_running, np.float32)
        self._frequency = np.zeros(max_running, np.float32)
        self._repetition = np.ones(max_running, np.float32)

    def seat(self, row: int, request: Request) -> int:
        """Write the request's parameters into the row; returns its features."""
        sampling = request.sampling
        stops = self.drawable(request.stop_token_ids)
        features = _features(request, self._vocab_size)
        self.features[row] = features
        self.stream_keys[row] = stream_key(sampling.seed)
        self.hold_until[row] = len(request.prompt) + request.min_tokens
        self.num_logprobs[row] = sampling.num_logprobs or 0
        self.fallback[row] = stops[0] if stops else 0
        self._temperature[row] = _in_float32(sampling.temperature) if features & DRAWN else 1.0
        self._top_k[row] = _effective_top_k(sampling, self._vocab_size)
        self._top_p[row] = sampling.top_p
        self._min_p[row] = sampling.min_p
        self._presence[row] = sampling.presence_penalty
        self._frequency[row] = sampling.frequency_penalty
        self._repetition[row] = _in_float32(sampling.repetition_penalty)
        return features

    def drawable(self, tokens: tuple[TokenId, ...]) -> tuple[TokenId, ...]:
        """The tokens that the model can draw: a stop token beyond its head never comes."""
        return tuple(token for token in tokens if 0 <= token < self._vocab_size)

    def held(self, rows: IntColumn, positions: IntColumn) -> Indices:
        """Which entries of `rows` may not draw a stop token yet. The others drop the feature."""
        held = self.features[rows] & HELD != 0
        early = positions < self.hold_until[rows]
        self.features[rows[held & ~early]] &= 0xFF - HELD
        return np.flatnonzero(held & early)

    def filters(self, rows: IntColumn) -> FilterColumns:
        """Temperatures and filters, one entry for each of `rows`."""
        return FilterColumns(
            temperature=self._temperature[rows],
            top_k=self._top_k[rows],
            top_p=self._top_p[rows],
            min_p=self._min_p[rows],
        )

    def temperatures(self, rows: IntColumn) -> FloatColumn:
        """Temperatures, one for each of `rows`; 1 where greedy."""
        return self._temperature[rows]

    def penalties(self, rows: IntColumn) -> PenaltyColumns:
        """Penalties, one entry for each of `rows`."""
        return PenaltyColumns(
            presence=self._presence[rows],
            frequency=self._frequency[rows],
            repetition=self._repetition[rows],
        )


def _features(request: Request, vocab_size: int) -> int:
    sampling = request.sampling
    features = 0
    if sampling.temperature >= GREEDY_BELOW:
        features |= DRAWN
        top_k = _effective_top_k(sampling, vocab_size)
        if top_k < vocab_size or sampling.top_p < 1.0 or sampling.min_p > 0.0:
            features |= FILTERED
    if sampling.logit_bias:
        features |= BIASED
    additive = sampling.presence_penalty != 0.0 or sampling.frequency_penalty != 0.0
    if additive or sampling.repetition_penalty != 1.0:
        features |= PENALISED
    if request.min_tokens > 0 and request.stop_token_ids:
        features |= HELD
    if sampling.guide is not None:
        features |= GUIDED
    if sampling.num_logprobs is not None:
        features |= LOGPROBS
    return features


def _in_float32(value: float) -> float:
    return min(value, float(np.finfo(np.float32).max))


def _effective_top_k(sampling: Sampling, vocab_size: int) -> int:
    return min(sampling.top_k, vocab_size) if sampling.top_k > 0 else vocab_size
