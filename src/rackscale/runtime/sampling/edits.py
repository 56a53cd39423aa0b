"""What changes logits before a token is drawn: bias, then penalties, then what must not come yet.

Source for the order of bias and penalties, and for the penalties' formulas: vLLM,
v1/sample/sampler.py and v1/sample/ops/penalties.py. Masks come last here, so that no bias revives
what they exclude. All of it works in place on a copy of the logits.
"""

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from rackscale.core import IntColumn, TokenId
from rackscale.runtime.sampling.rows import Indices, PenaltyColumns

Int64Column = npt.NDArray[np.int64]


class TokenTable:
    """Tokens by row, each with a value: logit biases, or the stop tokens held back."""

    def __init__(self, *, vocab_size: int, device: torch.device) -> None:
        self._vocab_size = vocab_size
        self._device = device
        self._tokens: dict[int, Tensor] = {}
        self._values: dict[int, Tensor] = {}

    def seat(self, row: int, values: dict[TokenId, float]) -> None:
        """Replace the row's entries. Tokens beyond the vocabulary are never drawn: left out."""
        self._tokens.pop(row, None)
        drawable = {token: value for token, value in values.items() if token < self._vocab_size}
        if drawable:
            self._tokens[row] = torch.tensor(list(drawable), device=self._device)
            self._values[row] = torch.tensor(
                list(drawable.values()), dtype=torch.float32, device=self._device
            )

    def add(self, logits_NV: Tensor, rows: IntColumn, where: Iterable[int]) -> None:
        """Add the values of rows[i] to logits_NV[i] for each i in `where`."""
        for i in where:
            tokens = self._tokens.get(int(rows[i]))
            if tokens is not None:
                logits_NV[i, tokens] += self._values[int(rows[i])]


class SeenTokens:
    """The distinct tokens of one sequence, with how often each is in its output.

    A token's place in the columns is found by a dict, so that one more token costs the same
    whatever the length.
    """

    def __init__(self, prompt: tuple[TokenId, ...], emitted: tuple[TokenId, ...]) -> None:
        known = np.asarray(prompt + emitted, np.int64)
        self._tokens, places = np.unique(known, return_inverse=True)
        self._counts = np.bincount(places[len(prompt) :], minlength=len(self._tokens))
        self._num_tokens = len(self._tokens)
        self._place_of = {int(token): place for place, token in enumerate(self._tokens)}

    @property
    def tokens(self) -> Int64Column:
        """The distinct tokens, of prompt and output."""
        return self._tokens[: self._num_tokens]

    @property
    def counts(self) -> Int64Column:
        """How often each is in the output."""
        return self._counts[: self._num_tokens]

    def add(self, token: int) -> None:
        """The token joins the output."""
        place = self._place_of.setdefault(token, self._num_tokens)
        if place == self._num_tokens:
            self._append(token)
        self._counts[place] += 1

    def _append(self, token: int) -> None:
        if self._num_tokens == len(self._tokens):
            room = np.zeros(len(self._tokens), np.int64)
            self._tokens = np.concatenate((self._tokens, room))
            self._counts = np.concatenate((self._counts, room))
        self._tokens[self._num_tokens] = token
        self._num_tokens += 1


class Penalties:
    """The seen tokens of the penalised rows. A step touches those tokens alone, not V a row."""

    def __init__(self) -> None:
        self._rows: dict[int, SeenTokens] = {}

    def seat(self, row: int, prompt: tuple[TokenId, ...], emitted: tuple[TokenId, ...]) -> None:
        """Forget whoever had the row and count the tokens given."""
        self._rows[row] = SeenTokens(prompt, emitted)

    def advance(self, rows: IntColumn, tokens: IntColumn) -> None:
        """One more of tokens[i] in each rows[i]."""
        for row, token in zip(rows.tolist(), tokens.tolist(), strict=True):
            self._rows[row].add(token)

    def apply(self, logits_NV: Tensor, rows: IntColumn, where: Indices, columns: PenaltyColumns) -> None:
        """Penalise logits_NV[where[i]] by what rows[i] has seen.

        columns runs in parallel to rows. Repetition counts prompt and output: a positive logit is
        divided, a negative one multiplied. Frequency and presence count the output alone.
        """
        seen = [self._rows[row] for row in rows.tolist()]
        lengths = [len(each.tokens) for each in seen]
        counts = np.concatenate([each.counts for each in seen])
        frequency, presence, repetition = (
            np.repeat(column, lengths) for column in (columns.frequency, columns.presence, columns.repetition)
        )
        subtracted = (frequency * counts + presence * (counts > 0)).astype(np.float32)
        device = logits_NV.device
        index = (
            torch.from_numpy(np.repeat(where, lengths)).to(device),
            torch.from_numpy(np.concatenate([each.tokens for each in seen])).to(device),
        )
        divisor = torch.from_numpy(repetition).to(device)
        logits = logits_NV[index]
        logits = torch.where(logits > 0, logits / divisor, logits * divisor)
        logits_NV[index] = logits - torch.from_numpy(subtracted).to(device)
