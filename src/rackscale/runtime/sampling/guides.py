"""Structured output: a language as a mask over the vocabulary, by llguidance.

No torch here: where requests enter, a process without torch checks their guides. Masks are rows of
bits, bit t of a row for token t.
"""

from collections import OrderedDict
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from llguidance import LLMatcher, LLParserLimits, LLTokenizer

from rackscale.core import Guide, RackscaleError, SpecError, TokenId
from rackscale.runtime.sampling.grammar import grammar_of

Bits = npt.NDArray[np.uint8]

_WALKED: Final = 8  # tokens that a check follows
_MAX_COMPILED: Final = 128  # guides kept compiled; a compiled one is copied in microseconds

# The library's own budgets, tightened: a step of a hostile grammar ends in an error, not in a wait.
_LIMITS: Final = LLParserLimits(max_grammar_size=100_000, step_max_items=20_000, verbose_errors=False)


def check_guide(guide: Guide, tokenizer_path: Path | None = None) -> None:
    """Refuse a guide that could not be followed.

    Raises SpecError, with the library's message, for a source that is not of its kind, uses what
    the library lacks, or is too large. With a tokenizer.json the first few tokens are tried too.
    The library may run long, and on some sources overflow its stack: `GuideChecker` does this in a
    process of its own.
    """
    grammar = grammar_of(guide)
    tokenizer = None if tokenizer_path is None else load_tokenizer(tokenizer_path)
    failed, messages = LLMatcher.validate_grammar_with_warnings(grammar, tokenizer, limits=_LIMITS)
    if failed:
        raise _unusable(guide, messages[0])
    if tokenizer is None:
        return
    matcher = LLMatcher(tokenizer, grammar, log_level=0, limits=_LIMITS)
    _walk(GuideRow(matcher, tokenizer, ()))
    if matcher.is_error():
        raise _unusable(guide, matcher.get_error())


class GuideRow:
    """Where one sequence stands in its guide's language.

    stop_tokens: what ends the sequence. They are allowed when the text so far belongs to the
    language, and then only; other tokens as the language says.
    """

    def __init__(self, matcher: LLMatcher, tokenizer: LLTokenizer, stop_tokens: tuple[TokenId, ...]) -> None:
        self.stop_tokens = stop_tokens
        self._stops = np.asarray(stop_tokens, np.int64)
        self._ends = np.asarray(tokenizer.eos_tokens, np.int64)
        # The library writes whole 32-bit words.
        self._num_bytes = -(-int(tokenizer.vocab_size) // 32) * 4
        self._matcher = matcher
        self._ended = False

    def allowed_bits(self) -> Bits:
        """Which tokens may come. No bit at all: the library gave up, nothing can go on."""
        bits = np.zeros(self._num_bytes, np.uint8)
        accepting = self._ended
        if not self._ended:
            # Once in error (a budget ran out), the library allows its end token alone.
            self._matcher.unsafe_compute_mask_ptr(bits.ctypes.data, self._num_bytes)
            accepting = bool(self._matcher.is_accepting())
        # The library knows one end token of its tokenizer; a request has its own.
        _set_bits(bits, self._ends, on=False)
        _set_bits(bits, self._stops, on=accepting)
        return bits

    def advance(self, token: TokenId) -> None:
        """The token came. After a stop token nothing else is expected."""
        if token in self.stop_tokens:
            self._ended = True
        elif not self._ended:
            self._matcher.consume_token(token)


class GuideCompiler:
    """Makes the rows of one tokenizer over a model's head of `vocab_size` tokens."""

    def __init__(self, tokenizer_path: Path, *, vocab_size: int) -> None:
        self._tokenizer = load_tokenizer(tokenizer_path, vocab_size)
        self._compiled: OrderedDict[Guide, LLMatcher] = OrderedDict()

    def start(self, guide: Guide, stop_tokens: tuple[TokenId, ...], emitted: Sequence[TokenId]) -> GuideRow:
        """A row that has seen the tokens emitted.

        stop_tokens empty: the tokenizer's own end tokens.
        A guide that `check_guide` would refuse gives a row that allows nothing.
        """
        stops = stop_tokens or tuple(TokenId(token) for token in self._tokenizer.eos_tokens)
        row = GuideRow(self._matcher(guide).deep_copy(), self._tokenizer, stops)
        for token in emitted:
            row.advance(token)
        return row

    @property
    def num_compiled(self) -> int:
        """Guides kept compiled."""
        return len(self._compiled)

    def _matcher(self, guide: Guide) -> LLMatcher:
        matcher = self._compiled.get(guide)
        if matcher is None:
            try:
                grammar = grammar_of(guide)
            except SpecError:
                grammar = ""  # the library refuses it as well: a matcher in error from the start
            matcher = LLMatcher(self._tokenizer, grammar, log_level=0, limits=_LIMITS)
            self._compiled[guide] = matcher
        self._compiled.move_to_end(guide)
        if len(self._compiled) > _MAX_COMPILED:
            self._compiled.popitem(last=False)
        return matcher


@lru_cache(maxsize=4)
def load_tokenizer(path: Path, vocab_size: int = 0) -> LLTokenizer:
    """A tokenizer with a bit in its masks for each token of a model's head, or more.

    Ids beyond the tokenizer's have no text: no mask allows them. The library guesses the end token by
    its name, and takes token 0 where it knows none; if that is text, a special token stands in for it,
    so that the text stays of use. Kept once loaded.
    Raises SpecError where the library cannot read it.
    """
    try:
        tokenizer = LLTokenizer(str(path))
        end = _end_token(tokenizer)
        if end != tokenizer.eos_token or vocab_size > tokenizer.vocab_size:
            num_tokens = max(tokenizer.vocab_size, vocab_size)
            return LLTokenizer(str(path), n_vocab=num_tokens, eos_token=end)
    except Exception as error:  # noqa: BLE001 (the library raises bare exceptions of several kinds)
        raise SpecError(
            f"structured output cannot use {path}: {error}", hint="it needs a tokenizer.json"
        ) from None
    return tokenizer


def _end_token(tokenizer: LLTokenizer) -> int:
    guess = int(tokenizer.eos_token)
    if tokenizer.is_special_token(guess):
        return guess
    return next(filter(tokenizer.is_special_token, range(tokenizer.vocab_size)), guess)


def _walk(row: GuideRow) -> None:
    """Follow the lowest allowed token for a few steps: what is too wide shows early."""
    for _ in range(_WALKED):
        allowed = np.flatnonzero(np.unpackbits(row.allowed_bits(), bitorder="little"))
        if not len(allowed):
            return
        row.advance(TokenId(int(allowed[0])))


def _set_bits(bits: Bits, tokens: npt.NDArray[np.int64], *, on: bool) -> None:
    for token in tokens.tolist():
        byte, bit = token >> 3, 1 << (token & 7)
        if byte < len(bits):
            bits[byte] = bits[byte] | bit if on else bits[byte] & (255 - bit)


def _unusable(guide: Guide, message: str) -> RackscaleError:
    first_lines = " ".join(message.replace("<non-verbose/>", "").split())[:300]
    return SpecError(
        f"the {guide.kind.value} guide cannot be followed: {first_lines}",
        hint="correct or simplify it",
    )
