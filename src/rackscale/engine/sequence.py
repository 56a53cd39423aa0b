"""One accepted request, from its arrival to its end."""

from dataclasses import dataclass

import numpy as np

from rackscale.core import FinishReason, IntColumn, Request, TokenId
from rackscale.policy import ROOT, BlockHash, block_hashes


@dataclass(kw_only=True, slots=True)
class Sequence:
    """What does not change from step to step; what does is in the columns of `Rows`.

    names: of full blocks of prompt + emitted, those of the prompt at least. emitted: the output up to the
    last time that the sequence lost its row. num_cached None: it never had a row. push_lost: its KV did not
    arrive where it was to be decoded.
    """

    request: Request
    importance: float
    limit: int  # tokens, prompt and output
    names: list[BlockHash]
    emitted: tuple[TokenId, ...] = ()
    num_cached: int | None = None
    push_lost: bool = False

    def tokens(self) -> IntColumn:
        """Prompt and emitted tokens."""
        return np.array(self.request.prompt + self.emitted, dtype=np.int32)

    @property
    def num_tokens(self) -> int:
        return len(self.request.prompt) + len(self.emitted)

    def end_of_emitted(self) -> FinishReason | None:
        """Why nothing comes after the emitted tokens, if so."""
        request, count = self.request, len(self.emitted)
        if count > request.min_tokens and self.emitted[-1] in request.stop_token_ids:
            return FinishReason.STOP
        return FinishReason.LENGTH if self.num_tokens >= self.limit else None

    def extend_names(self, tokens: IntColumn, block_size: int) -> None:
        """Name all full blocks of `tokens`, which begin with the tokens named so far."""
        parent = self.names[-1] if self.names else ROOT
        self.names += block_hashes(tokens[len(self.names) * block_size :], block_size, parent)
