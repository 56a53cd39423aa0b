"""What may be asked."""

import pytest
from planning import PRIORS, question

from rackscale.core import SpecError


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"prefix_hits": 1.0}, "prefix_hits is 1.0"),
        ({"isl": 0}, "isl is 0: give a number above 0"),
        ({"osl": -4}, "osl is -4"),
        ({"interactivity": 0.0}, "interactivity is 0.0"),
        ({"interactivity": float("nan")}, "interactivity is nan"),
        ({"ttft_s": float("inf")}, "ttft_s is inf"),
        ({"chips": 0}, "chips is 0"),
        ({"isl": 10**7}, "beyond the context of qwen3-30b-a3b: give at most"),
        ({"redundant": -1}, "redundant is -1"),
        ({"skew": 2.0}, "skew is 2.0: give a Zipf exponent from 0 to 1.5"),
        ({"skew": float("nan")}, "skew is nan"),
        ({"role": "mixd"}, "role mixd is not known: give mixed"),
        ({"engine": "vlm"}, "engine vlm is not known: give vllm"),
        ({"weights": "nvpf4"}, "weights nvpf4 is not known: give nvfp4"),
        ({"power": "wall"}, "power wall of hgx-b200 is not known"),
        ({"price": "rentals"}, "price rentals of hgx-b200 is not known: give rental"),
        ({"system": "hgx-h200", "weights": "nvfp4"}, "hgx-h200 has no units for nvfp4: give bf16"),
        ({"system": "mi355x", "weights": "nvfp4"}, "mi355x has no units for nvfp4"),
    ],
)
def test_what_makes_no_sense_is_refused(changes, what):
    with pytest.raises(SpecError, match=what):
        question(**changes).check()


@pytest.mark.parametrize(
    ("model", "system", "formats"),
    [
        ("kimi-k2-thinking", "gb200-nvl72", ("int4", "nvfp4")),
        ("kimi-k2-thinking", "hgx-h200", ("int4",)),
        ("deepseek-r1", "hgx-h200", ("fp8",)),
        ("deepseek-r1", "mi355x", ("fp8", "mxfp4")),
        ("qwen3-30b-a3b", "hgx-b200", ("bf16", "fp8", "nvfp4")),
        ("gpt-oss-120b", "hgx-b200", ("mxfp4",)),
    ],
)
def test_formats_are_those_that_a_chip_and_a_checkpoint_have(model, system, formats):
    assert question(model, system, weights="auto").formats() == formats


def test_a_skew_replaces_the_fitted_one():
    changed = question(skew=0.9).with_skew(PRIORS)
    assert changed["routing_skew"][0, 0] == pytest.approx(0.9)
    assert question().with_skew(PRIORS) is PRIORS
    assert question(skew=0.0).with_skew(PRIORS)["routing_skew"][0, 0] == pytest.approx(0, abs=1e-6)
