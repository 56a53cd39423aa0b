"""What a request's text may depend on, and what ends a row that can draw nothing."""

import logging
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from rackscale.core import Guide, GuideKind, Request, TokenId, column, decode_msgpack, encode_msgpack
from rackscale.runtime.sampling import Sampler

END, OTHER_END = 0, 1
Make = Callable[..., Any]

# One request of every kind, so that a batch of them goes through every part at once.
KINDS: tuple[dict[str, Any], ...] = (
    {"temperature": 0.0},
    {"seed": 1},
    {"seed": 2, "temperature": 0.7, "top_k": 20},
    {"seed": 3, "top_p": 0.8},
    {"seed": 4, "min_p": 0.05, "temperature": 1.3},
    {"seed": 5, "temperature": 0.9, "top_k": 30, "top_p": 0.9, "min_p": 0.01},
    {"temperature": 0.0, "presence_penalty": 1.5, "frequency_penalty": 0.5},
    {"seed": 6, "repetition_penalty": 1.3},
    {"seed": 7, "logit_bias": {TokenId(9): 5.0, TokenId(11): -100.0}},
    {"seed": 8, "num_logprobs": 3},
    {"seed": 9, "guide": Guide(kind=GuideKind.REGEX, source="[a-z ]{300}")},
    {"temperature": 0.0, "guide": Guide(kind=GuideKind.REGEX, source="([a-z]{2}[0-9]){100}")},
    {"seed": 10, "frequency_penalty": 2.0, "top_p": 0.9, "num_logprobs": 0},
    {"seed": 11, "presence_penalty": -2.0, "top_k": 5},
    {"seed": 12, "repetition_penalty": 0.8, "logit_bias": {TokenId(20): 3.0}},
    {"seed": -(2**63), "temperature": 2.0},
)


def requests(make_request: Make) -> list[Request]:
    """Of different lengths, every second with min_tokens."""
    return [
        make_request(prompt=(5, 6, 7, 8, 9)[: 2 + i % 4], min_tokens=5 * (i % 2), **kind)
        for i, kind in enumerate(KINDS)
    ]


def test_a_row_alone_draws_what_it_draws_in_a_batch(sequences: Make, make_request: Make) -> None:
    together = sequences()
    order = [11, 3, 14, 0, 9, 6, 12, 1, 15, 4, 8, 13, 2, 10, 5, 7]
    for row, request in zip(order, requests(make_request), strict=True):
        together.seat(row, request)
    for step in range(40):  # the batch's order and its members change from step to step
        together.step(order[step % 16 :] + order[: step % 16])
    for row, request in zip(order, requests(make_request), strict=True):
        alone = sequences()
        alone.seat(0, request)
        assert alone.run([0], 40)[0] == together.tokens[row]


def test_a_batch_in_parts_draws_the_same(
    sequences: Make, make_request: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, parted = sequences(), sequences()
    for row, request in enumerate(requests(make_request)):
        whole.seat(row, request)
        parted.seat(row, request)
    for _ in range(20):
        expected = whole.step(list(range(16)))
        with monkeypatch.context() as patch:
            patch.setattr("rackscale.runtime.sampling.sampler._PART_ELEMENTS", 3 * 320 + 1)
            assert parted.step(list(range(16))) == expected


def test_a_sequence_goes_on_the_same_after_it_was_moved(sequences: Make, make_request: Make) -> None:
    whole, moved = sequences(), sequences()
    for row, request in enumerate(requests(make_request)):
        whole.seat(row, request)
    expected = whole.run(list(range(16)), 40)
    for row in range(16):  # others had the rows before, with other penalties, guides and biases
        moved.seat(row, requests(make_request)[(row + 7) % 16])
    moved.run(list(range(16)), 5)
    for row, request in enumerate(requests(make_request)):
        moved.seat(15 - row, request, tuple(expected[row][len(request.prompt) :][:16]))
    moved.run(list(range(16)), 24)
    for row in range(16):
        assert moved.tokens[15 - row] == expected[row]


def test_seeds_make_the_difference(sequences: Make, make_request: Make) -> None:
    pair = sequences()
    for row, seed in enumerate((0, 1, 0)):
        pair.seat(row, make_request(seed=seed))
    tokens = pair.run([0, 1, 2], 30)
    assert tokens[0] == tokens[2] != tokens[1]


def test_drawn_tokens_follow_the_filtered_distribution(make_sampler: Make, make_request: Make) -> None:
    """Chi-square over the three tokens that top-k leaves, at a temperature; 5 standard deviations."""
    logits = torch.zeros(1, 50)
    logits[0, [7, 3, 40]] = torch.tensor([3.0, 2.5, 2.0])
    sampler = make_sampler(vocab_size=50)
    counts = np.zeros(50)
    sampler.seat(0, make_request(temperature=0.5, top_k=3, seed=17))
    for position in range(3, 3003):
        tokens, _ = sampler.sample(logits, column([0]), column([position]))
        counts[int(tokens[0])] += 1
    expected = (logits[0, [7, 3, 40]].double() / 0.5).softmax(0).numpy() * 3000
    assert counts.sum() == counts[[7, 3, 40]].sum()
    chi = ((counts[[7, 3, 40]] - expected) ** 2 / expected).sum()
    assert chi < 2 + 5 * math.sqrt(2 * 2)


def test_greedy_takes_the_lowest_of_equals(make_request: Make, sample_one: Make) -> None:
    assert sample_one(make_request(temperature=0.0), [1.0, 3.0, 2.0, 3.0]) == 1
    assert sample_one(make_request(temperature=1e-6, seed=3), [1.0, 3.0, 2.0, 3.0]) == 1


@pytest.mark.parametrize("vocab_size", [1, 2, 63, 64, 65, 320])
def test_vocabularies_of_any_size(vocab_size: int, make_sampler: Make, make_request: Make) -> None:
    sampler = make_sampler(vocab_size=vocab_size)
    sampler.seat(0, make_request(prompt=(0,), temperature=0.0, top_p=0.9))
    sampler.seat(1, make_request(prompt=(0,), top_p=0.9, top_k=vocab_size + 1, num_logprobs=20))
    tokens, logprobs = sampler.sample(torch.zeros(2, vocab_size), column([0, 1]), column([1, 1]))
    assert int(tokens[0]) == 0
    assert 0 <= int(tokens[1]) < vocab_size
    assert len(logprobs[0].top) == min(20, vocab_size)


def test_an_empty_batch_and_columns_off_the_wire(make_sampler: Make, make_request: Make) -> None:
    sampler = make_sampler()
    tokens, logprobs = sampler.sample(torch.zeros(0, 320), column(), column())
    assert (tokens.tolist(), logprobs) == ([], ())
    for row, kind in enumerate(KINDS):
        sampler.seat(row, make_request(**kind))
    rows = decode_msgpack(encode_msgpack(column(range(16))), np.ndarray)  # read-only memory
    positions = decode_msgpack(encode_msgpack(column([3] * 16)), np.ndarray)
    tokens, _ = sampler.sample(torch.randn(16, 320), rows, positions)
    assert len(tokens) == 16


def test_the_logits_given_are_left_alone(make_sampler: Make, make_request: Make) -> None:
    sampler = make_sampler()
    for row, request in enumerate(requests(make_request)):
        sampler.seat(row, request)
    logits = torch.randn(16, 320)
    logits[3] = torch.nan
    before = logits.clone()
    sampler.sample(logits, column(range(16)), column([3] * 16))
    assert torch.equal(logits.nan_to_num(7.0), before.nan_to_num(7.0))


def test_stop_tokens_are_held_back_until_min_tokens(make_request: Make, make_sampler: Make) -> None:
    logits = torch.zeros(1, 320)
    logits[0, END], logits[0, OTHER_END], logits[0, 50] = 9.0, 8.0, 7.0
    for temperature in (0.0, 0.01):
        sampler: Sampler = make_sampler()
        request = make_request(stops=(END, OTHER_END), min_tokens=3, temperature=temperature)
        sampler.seat(2, request)
        drawn = [
            int(sampler.sample(logits, column([2]), column([position]))[0][0]) for position in range(3, 8)
        ]
        assert drawn == [50, 50, 50, END, END]
        sampler.seat(2, request, (TokenId(50), TokenId(50)))
        assert int(sampler.sample(logits, column([2]), column([5]))[0][0]) == 50
        assert int(sampler.sample(logits, column([2]), column([6]))[0][0]) == END


def test_bias_adds_and_bans(make_request: Make, sample_one: Make) -> None:
    logits = [0.0, 3.0, 2.0, 0.0]
    assert sample_one(make_request(temperature=0.0, logit_bias={2: 1.5}), logits) == 2
    assert sample_one(make_request(temperature=0.0, logit_bias={1: -100.0, 2: -2.5}), logits) == 0
    assert sample_one(make_request(temperature=0.0, logit_bias={1: -math.inf}), logits) == 2


@pytest.mark.parametrize("kind", KINDS[:10] + KINDS[12:])
def test_single_nans_and_infinities_are_survived(
    kind: dict[str, Any], make_request: Make, sample_one: Make
) -> None:
    logits = torch.full((320,), -math.inf)
    logits[::2] = math.nan
    logits[33] = 1.0
    assert sample_one(make_request(**kind), logits) == 33
    logits = torch.zeros(320)
    logits[44] = math.inf
    assert sample_one(make_request(**kind), logits) == 44


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("value", [math.nan, -math.inf])
def test_a_row_without_a_finite_logit_ends_and_the_others_go_on(
    kind: dict[str, Any],
    value: float,
    make_sampler: Make,
    make_request: Make,
    caplog: pytest.LogCaptureFixture,
) -> None:
    sampler = make_sampler()
    for row in (0, 1):
        sampler.seat(row, make_request(stops=(999, 50, 60), **kind))
    logits = torch.randn(2, 320, generator=torch.Generator().manual_seed(5))
    healthy = logits[1].clone()
    logits[0] = value
    with caplog.at_level(logging.WARNING):
        tokens, logprobs = sampler.sample(logits, column([0, 1]), column([3, 3]))
        sampler.sample(logits, column([0, 1]), column([4, 4]))
    alone = make_sampler()
    alone.seat(1, make_request(stops=(999, 50, 60), **kind))
    assert tokens.tolist() == [50, int(alone.sample(healthy[None], column([1]), column([3]))[0][0])]
    assert all(math.isfinite(each.logprob) for each in logprobs)
    assert len(caplog.records) == 1


def test_a_row_that_ends_by_nothing_gives_token_zero(make_request: Make, sample_one: Make) -> None:
    assert sample_one(make_request(stops=()), torch.full((320,), math.nan)) == 0


def test_extreme_parameters_stay_finite(make_request: Make, sample_one: Make) -> None:
    assert sample_one(make_request(temperature=1.01e-5), [0.0, -3e38, 3e38, 1.0]) == 2
    logits = torch.linspace(-30, 30, 320)
    assert sample_one(make_request(temperature=1.01e-5), logits) == 319
    assert 0 <= sample_one(make_request(temperature=1e300), logits) < 320
    assert 0 <= sample_one(make_request(repetition_penalty=1e300), logits) < 320
    assert 0 <= sample_one(make_request(repetition_penalty=1e-300), logits) < 320
    assert sample_one(make_request(top_p=1e-9), logits) == 319
    assert sample_one(make_request(min_p=1.0), logits) == 319
    assert sample_one(make_request(top_k=1), logits) == 319
