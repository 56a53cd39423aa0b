"""How well a model predicts a text: the negative log-likelihood of its tokens.

Windows as long as the model's context slide over the text, each scoring what the one in front of it did not
reach, so that every token sees at least half a window before it (but for the text's first window, where
there is no more).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from rackscale.core import IntColumn, TokenId
from rackscale.runtime.batch import make_batch
from rackscale.runtime.rank import Rank


@dataclass(frozen=True, kw_only=True, slots=True)
class Window:
    """Tokens start .. end - 1 are computed, of which those from `scored` on count."""

    start: int
    end: int
    scored: int


def windows(num_tokens: int, size: int) -> Iterator[Window]:
    """Windows of at most `size` tokens that score tokens 1 .. num_tokens - 1 once each."""
    end, start = 1, 0
    while end < num_tokens:
        scored, end = end, min(start + size, num_tokens)
        yield Window(start=start, end=end, scored=scored)
        start = end - size // 2


@torch.inference_mode()
def score(
    rank: Rank, tokens: Sequence[TokenId], size: int, progress: Callable[[int, int], None] = lambda *_: None
) -> float:
    """The sum of -ln p of tokens[1:], each given those before it in its window.

    tokens: at least two. size: of a window, at most what the rank's rows hold. progress: told how many
    tokens are scored, of how many. Uses row 0 and the first blocks of the rank.
    """
    data = np.array(tokens, dtype=np.int32)
    cache = rank.cache
    cache.table[0] = np.arange(cache.table.shape[1])
    nats = 0.0
    for window in windows(len(data), size):
        logits = _logits(rank, data[window.start : window.end - 1])
        first = window.scored - window.start - 1
        targets = torch.from_numpy(data[window.scored : window.end].astype(np.int64)).to(logits.device)
        nats += F.cross_entropy(logits[first:].double(), targets, reduction="sum").item()
        progress(window.end, len(data))
    return nats


def _logits(rank: Rank, tokens: IntColumn) -> torch.Tensor:
    """Logits after each of the tokens, as the first and only ones of row 0."""
    zero, count = np.zeros(1, dtype=np.int32), np.array([len(tokens)], dtype=np.int32)
    batch = make_batch(rank.cache, tokens, zero, zero, count, None, rank.device)
    return rank.model(batch, rank.cache)
