from collections.abc import Callable
from typing import Any

import pytest
import torch

from rackscale.core import Guide, GuideKind, column
from rackscale.runtime.sampling.logprobs import FLOOR, token_logprobs

Make = Callable[..., Any]


def test_they_are_the_models_own_whatever_shapes_the_draw(make_sampler: Make, make_request: Make) -> None:
    logits = torch.randn(4, 320, generator=torch.Generator().manual_seed(0)) * 3
    sampler = make_sampler()
    sampler.seat(0, make_request(temperature=0.3, top_k=2, num_logprobs=5, repetition_penalty=2.0))
    sampler.seat(1, make_request(seed=3))
    sampler.seat(2, make_request(num_logprobs=0, logit_bias={17: 100.0}))
    guide = Guide(kind=GuideKind.CHOICE, source='["yes"]')
    sampler.seat(3, make_request(num_logprobs=20, guide=guide, frequency_penalty=1.0))
    tokens, answers = sampler.sample(logits, column([0, 1, 2, 3]), column([3] * 4))
    expected = logits.log_softmax(-1)
    assert [each.sample for each in answers] == [0, 2, 3]
    assert [len(each.top) for each in answers] == [5, 0, 20]
    assert int(tokens[2]) == 17
    for each in answers:
        assert each.logprob == pytest.approx(float(expected[each.sample, int(tokens[each.sample])]))
        values, ids = expected[each.sample].topk(len(each.top))
        assert [token for token, _ in each.top] == ids.tolist()
        assert [value for _, value in each.top] == pytest.approx(values.tolist())


def test_equals_stand_in_the_order_of_their_ids() -> None:
    logits = torch.tensor([[2.0, 5.0, 2.0, 5.0, 1.0]])
    (answer,) = token_logprobs(logits, column([4]), column([0]), column([4]))
    assert [token for token, _ in answer.top] == [1, 3, 0, 2]


def test_what_the_model_ruled_out_has_the_floor() -> None:
    logits = torch.tensor([[0.0, -torch.inf, torch.nan]])
    (answer,) = token_logprobs(logits, column([1]), column([0]), column([3]))
    assert answer.logprob == FLOOR
    assert answer.top == ((0, 0.0), (1, FLOOR), (2, FLOOR))
