import math

import pytest

from rackscale.core import Sampling, SpecError, TokenId
from rackscale.runtime.sampling import validate_sampling

V = 100


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(),
        Sampling(temperature=0.0, top_k=-1, top_p=1.0, min_p=1.0),
        Sampling(temperature=50.0, top_k=10**6, top_p=1e-9),
        Sampling(presence_penalty=-2.0, frequency_penalty=2.0, repetition_penalty=1e-3),
        Sampling(logit_bias={TokenId(0): -100.0, TokenId(V - 1): 100.0}),
        Sampling(seed=-(2**63), num_logprobs=0),
        Sampling(seed=2**63 - 1, num_logprobs=20),
    ],
)
def test_what_is_in_range_passes(sampling: Sampling) -> None:
    validate_sampling(sampling, vocab_size=V)


@pytest.mark.parametrize(
    ("parameter", "value", "hint"),
    [
        ("temperature", -0.1, "at least 0"),
        ("temperature", math.nan, "finite"),
        ("temperature", math.inf, "finite"),
        ("top_k", -2, "at least -1"),
        ("top_p", 0.0, "above 0 and at most 1"),
        ("top_p", 1.01, "above 0 and at most 1"),
        ("top_p", math.nan, "finite"),
        ("min_p", -0.1, "at least 0 and at most 1"),
        ("min_p", 1.1, "at least 0 and at most 1"),
        ("presence_penalty", 2.1, "at least -2 and at most 2"),
        ("frequency_penalty", -2.1, "at least -2 and at most 2"),
        ("repetition_penalty", 0.0, "above 0"),
        ("repetition_penalty", math.inf, "finite"),
        ("seed", 2**63, "64 bits"),
        ("seed", -(2**63) - 1, "64 bits"),
        ("num_logprobs", -1, "0 to 20"),
        ("num_logprobs", 21, "0 to 20"),
        ("logit_bias", {V: 1.0}, "0 to 99"),
        ("logit_bias", {-1: 1.0}, "0 to 99"),
        ("logit_bias", {1: 100.5}, "at most 100"),
        ("logit_bias", {1: math.nan}, "finite"),
    ],
)
def test_what_is_not_is_refused_with_a_way_out(parameter: str, value: object, hint: str) -> None:
    sampling = Sampling(**{parameter: value})
    with pytest.raises(SpecError) as refused:
        validate_sampling(sampling, vocab_size=V)
    assert hint in refused.value.hint
    assert refused.value.http_status == 400
