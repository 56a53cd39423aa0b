"""Guides over a batch: which rows have one, and their masks on the logits."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from rackscale.core import Guide, IntColumn, SpecError, TokenId
from rackscale.runtime.sampling.guides import GuideCompiler, GuideRow
from rackscale.runtime.sampling.rows import Indices


class GuideMasks:
    """The guided rows of a rank. The tokenizer is read when the first of them is seated."""

    def __init__(self, tokenizer_path: Path | None, *, vocab_size: int, device: torch.device) -> None:
        self._tokenizer_path = tokenizer_path
        self._vocab_size = vocab_size
        self._device = device
        self._compiler: GuideCompiler | None = None
        self._rows: dict[int, GuideRow] = {}
        bits = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1, bitorder="little")
        self._forbidden_of_byte = torch.from_numpy(bits == 0).to(device)

    def seat(
        self, row: int, guide: Guide, stops: tuple[TokenId, ...], emitted: tuple[TokenId, ...]
    ) -> TokenId:
        """Follow the guide in this row; returns the token that ends it when nothing can go on.

        Raises SpecError where there is no tokenizer to follow it by.
        """
        if self._compiler is None:
            if self._tokenizer_path is None:
                raise SpecError(
                    "structured output needs a tokenizer",
                    hint="put a tokenizer.json into the checkpoint's folder",
                )
            self._compiler = GuideCompiler(self._tokenizer_path, vocab_size=self._vocab_size)
        guided = self._compiler.start(guide, stops, emitted)
        self._rows[row] = guided
        drawable = [token for token in guided.stop_tokens if token < self._vocab_size]
        return drawable[0] if drawable else TokenId(0)

    def apply(self, logits_NV: Tensor, rows: IntColumn, where: Indices) -> None:
        """Put -inf in logits_NV[i] on what rows[i] does not allow, for each i in `where`."""
        bits_GB = np.stack([self._rows[int(rows[i])].allowed_bits() for i in where])
        index_GB = torch.from_numpy(bits_GB).to(self._device).int()
        forbidden_GV = self._forbidden_of_byte[index_GB].flatten(1)[:, : self._vocab_size]
        for i, forbidden_V in zip(where.tolist(), forbidden_GV, strict=True):
            logits_NV[i].masked_fill_(forbidden_V, -torch.inf)

    def advance(self, row: int, token: TokenId) -> None:
        """The row's sequence goes on with the token."""
        self._rows[row].advance(token)
