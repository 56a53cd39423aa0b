"""Penalties against their formulas, in plain Python."""

from collections import Counter

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rackscale.core import TokenId, column
from rackscale.runtime.sampling.edits import Penalties, SeenTokens
from rackscale.runtime.sampling.rows import PenaltyColumns

VOCAB = 12
tokens = st.lists(st.integers(0, VOCAB - 1), max_size=15)


def oracle(
    logits: list[float], prompt: list[int], output: list[int], penalties: tuple[float, float, float]
) -> list[float]:
    presence, frequency, repetition = penalties
    counts = Counter(output)
    result = []
    for token, logit in enumerate(logits):
        value = logit
        if token in counts or token in prompt:
            value = value / repetition if value > 0 else value * repetition
        result.append(value - frequency * counts[token] - presence * (counts[token] > 0))
    return result


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_penalties_agree_with_their_formulas(data: st.DataObject) -> None:
    rows = data.draw(st.lists(st.integers(0, 7), min_size=1, max_size=4, unique=True))
    logits = [
        data.draw(st.lists(st.integers(-20, 20).map(float), min_size=VOCAB, max_size=VOCAB)) for _ in rows
    ]
    values = [
        (
            data.draw(st.sampled_from([0.0, 0.5, -2.0])),
            data.draw(st.sampled_from([0.0, 0.25, -1.0])),
            data.draw(st.sampled_from([1.0, 2.0, 0.5])),
        )
        for _ in rows
    ]
    penalties = Penalties()
    histories = []
    for row in rows:
        prompt = data.draw(tokens.filter(bool))
        emitted, later = data.draw(tokens), data.draw(tokens)
        penalties.seat(row, tuple(map(TokenId, prompt)), tuple(map(TokenId, emitted)))
        for token in later:
            penalties.advance(column([row]), column([token]))
        histories.append((prompt, emitted + later))
    presence, frequency, repetition = (np.array(each, np.float32) for each in zip(*values, strict=True))
    columns = PenaltyColumns(presence=presence, frequency=frequency, repetition=repetition)
    # One batch entry in front that is not penalised.
    batch = torch.tensor([[1.0] * VOCAB, *logits])
    penalties.apply(batch, column(rows), np.arange(len(rows)) + 1, columns)
    expected = [
        oracle(each, prompt, output, value)
        for each, (prompt, output), value in zip(logits, histories, values, strict=True)
    ]
    assert batch.tolist() == [[1.0] * VOCAB, *expected]


@given(tokens.filter(bool), tokens, st.lists(st.integers(0, 200), max_size=100))
@settings(max_examples=100, deadline=None)
def test_seen_tokens_are_counted_one_by_one_as_at_once(
    prompt: list[int], emitted: list[int], later: list[int]
) -> None:
    grown = SeenTokens(tuple(map(TokenId, prompt)), tuple(map(TokenId, emitted)))
    for token in later:
        grown.add(token)
    whole = SeenTokens(tuple(map(TokenId, prompt)), tuple(map(TokenId, emitted + later)))
    assert dict(zip(grown.tokens.tolist(), grown.counts.tolist(), strict=True)) == dict(
        zip(whole.tokens.tolist(), whole.counts.tolist(), strict=True)
    )
