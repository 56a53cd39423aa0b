"""From logits to tokens, for the rows of one rank."""

import logging
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from rackscale.core import IntColumn, Request, TokenId
from rackscale.runtime.answer import TokenLogprobs
from rackscale.runtime.sampling import rows as feature
from rackscale.runtime.sampling.draw import Drawable, draw
from rackscale.runtime.sampling.edits import Penalties, TokenTable
from rackscale.runtime.sampling.filters import filtered_probs
from rackscale.runtime.sampling.guide_masks import GuideMasks
from rackscale.runtime.sampling.logprobs import token_logprobs
from rackscale.runtime.sampling.rows import RowTable
from rackscale.runtime.sampling.uniform import uniform

_LOG = logging.getLogger(__name__)

# Finite, and still finite after a division by the least temperature.
_LARGEST_LOGIT = 1e30

# 8 MiB of float32. glibc maps what is over 32 MiB anew each time; a quarter of it leaves room for
# several copies.
_PART_ELEMENTS = 1 << 21


class Sampler:
    """Draws the next token of each row, and keeps what its request needs to know of the last ones.

    vocab_size: V, the width of the model's head. tokenizer_path: the tokenizer.json that guides are
    followed by; None where no request has one. device: of the logits.
    """

    def __init__(
        self,
        *,
        vocab_size: int,
        max_running: int,
        tokenizer_path: Path | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        device = torch.device(device)
        self._table = RowTable(max_running=max_running, vocab_size=vocab_size)
        self._bias = TokenTable(vocab_size=vocab_size, device=device)
        self._held = TokenTable(vocab_size=vocab_size, device=device)
        self._penalties = Penalties()
        self._guides = GuideMasks(tokenizer_path, vocab_size=vocab_size, device=device)
        self._warned = False

    def seat(self, row: int, request: Request, emitted: tuple[TokenId, ...] = ()) -> None:
        """The request takes the row, its output so far being `emitted`; whoever had it is gone.

        Raises SpecError where it has a guide and there is no tokenizer.
        """
        features = self._table.seat(row, request)
        stops = self._table.drawable(request.stop_token_ids)
        self._bias.seat(row, request.sampling.logit_bias)
        self._held.seat(row, dict.fromkeys(stops, -torch.inf))
        if features & feature.PENALISED:
            self._penalties.seat(row, request.prompt, emitted)
        guide = request.sampling.guide
        if guide is not None:
            self._table.fallback[row] = self._guides.seat(row, guide, stops, emitted)

    def sample(
        self, logits_NV: Tensor, rows: IntColumn, positions: IntColumn
    ) -> tuple[Tensor, tuple[TokenLogprobs, ...]]:
        """One token a row, int32 [N] on the logits' device, and the log-probabilities asked for.

        logits_NV: fp32, left as it is. rows: seated, each at most once. positions: the index in the
        whole sequence, prompt included, of the token drawn.
        A row without a token to draw (its logits all NaN or -inf, or its guide at a dead end) gives
        its first stop token, so that it ends; the others go on.
        """
        features_N = self._table.features[rows]
        features = int(np.bitwise_or.reduce(features_N))
        tokens, drawable = self._choose(logits_NV, rows, positions, features)
        if not drawable.all():
            tokens = self._choose_despite(logits_NV, rows, positions, features)
        logprobs: tuple[TokenLogprobs, ...] = ()
        if features & feature.LOGPROBS:
            wanting = np.flatnonzero(features_N & feature.LOGPROBS)
            for where in (wanting[part] for part in _parts(len(wanting), logits_NV)):
                num_top = self._table.num_logprobs[rows[where]]
                logprobs += token_logprobs(logits_NV, tokens, where, num_top)
        if features & (feature.PENALISED | feature.GUIDED):
            self._advance(rows, tokens, features_N)
        return torch.from_numpy(tokens).to(logits_NV.device), logprobs

    def _choose(
        self, logits_NV: Tensor, rows: IntColumn, positions: IntColumn, features: int
    ) -> tuple[IntColumn, Drawable]:
        """Tokens, and which of them mean something."""
        if not features & (feature.EDITED | feature.DRAWN):
            return _greedy(logits_NV)
        chosen = [
            self._choose_part(logits_NV[part], rows[part], positions[part])
            for part in _parts(len(rows), logits_NV)
        ]
        tokens, drawable = zip(*chosen, strict=True)
        return np.concatenate(tokens), np.concatenate(drawable)

    def _choose_part(
        self, logits_NV: Tensor, rows: IntColumn, positions: IntColumn
    ) -> tuple[IntColumn, Drawable]:
        features = int(np.bitwise_or.reduce(self._table.features[rows]))
        if features & feature.EDITED:
            logits_NV = self._edited(logits_NV, rows, positions)
        if not features & feature.DRAWN:
            return _greedy(logits_NV)
        drawn = (self._table.features[rows] & feature.DRAWN) != 0
        if drawn.all():
            return self._drawn(logits_NV, rows, positions, features)
        tokens, drawable = _greedy(logits_NV)
        where = np.flatnonzero(drawn)
        part_DV = logits_NV[torch.from_numpy(where).to(logits_NV.device)]
        tokens[where], drawable[where] = self._drawn(part_DV, rows[where], positions[where], features)
        return tokens, drawable

    def _drawn(
        self, logits_NV: Tensor, rows: IntColumn, positions: IntColumn, features: int
    ) -> tuple[IntColumn, Drawable]:
        if features & feature.FILTERED:
            weights_NV = filtered_probs(logits_NV, self._table.filters(rows))
        else:
            temperature_N = torch.from_numpy(self._table.temperatures(rows)).to(logits_NV.device)
            weights_NV = (logits_NV / temperature_N[:, None]).softmax(-1)
        return draw(weights_NV, uniform(self._table.stream_keys[rows], positions))

    def _choose_despite(
        self, logits_NV: Tensor, rows: IntColumn, positions: IntColumn, features: int
    ) -> IntColumn:
        """Tokens where some logits are not finite, or some rows may draw nothing."""
        clean_NV = logits_NV.nan_to_num(nan=-torch.inf, posinf=_LARGEST_LOGIT, neginf=-torch.inf)
        clean_NV.clamp_(max=_LARGEST_LOGIT)
        tokens, drawable = self._choose(clean_NV, rows, positions, features)
        lost = np.flatnonzero(~drawable)
        tokens[lost] = self._table.fallback[rows[lost]]
        if not self._warned:
            self._warned = True
            _LOG.warning(
                "logits with NaN or infinity, or a guide at a dead end: %d of %d rows were ended;"
                " this is said once",
                len(lost),
                len(rows),
            )
        return tokens

    def _edited(self, logits_NV: Tensor, rows: IntColumn, positions: IntColumn) -> Tensor:
        """A copy with bias, penalties, held stop tokens and guides applied, in this order."""
        logits_NV = logits_NV.clone()
        features_N = self._table.features[rows]
        self._bias.add(logits_NV, rows, np.flatnonzero(features_N & feature.BIASED))
        penalised = np.flatnonzero(features_N & feature.PENALISED)
        if len(penalised):
            columns = self._table.penalties(rows[penalised])
            self._penalties.apply(logits_NV, rows[penalised], penalised, columns)
        self._held.add(logits_NV, rows, self._table.held(rows, positions))
        guided = np.flatnonzero(features_N & feature.GUIDED)
        if len(guided):
            self._guides.apply(logits_NV, rows, guided)
        return logits_NV

    def _advance(self, rows: IntColumn, tokens: IntColumn, features_N: npt.NDArray[np.uint8]) -> None:
        penalised = np.flatnonzero(features_N & feature.PENALISED)
        if len(penalised):
            self._penalties.advance(rows[penalised], tokens[penalised])
        for i in np.flatnonzero(features_N & feature.GUIDED):
            self._guides.advance(int(rows[i]), TokenId(int(tokens[i])))


def _parts(num_rows: int, logits_NV: Tensor) -> list[slice]:
    """The batch in parts whose copies a CPU's allocator reuses; larger ones are mapped, and faulted in
    page by page, for every copy. Rows do not depend on each other, so the parts change no result."""
    size = max(1, _PART_ELEMENTS // logits_NV.shape[1])
    if logits_NV.device.type != "cpu" or num_rows <= size:
        return [slice(num_rows)]
    return [slice(start, start + size) for start in range(0, num_rows, size)]


def _greedy(logits_NV: Tensor) -> tuple[IntColumn, Drawable]:
    """The greatest logit's token, the lowest id among equals, and whether that logit is finite.

    A NaN is greatest to both libraries, so that none goes unseen. On the CPU numpy's argmax is an
    order of magnitude faster than torch's, over the same memory.
    """
    if logits_NV.device.type == "cpu":
        values_NV = logits_NV.numpy()
        tokens = values_NV.argmax(-1)
        best = values_NV[np.arange(len(tokens)), tokens]
    else:
        best_N, tokens_N = logits_NV.max(-1)
        best, tokens = best_N.cpu().numpy(), tokens_N.cpu().numpy()
    return tokens.astype(np.int32), np.isfinite(best)
