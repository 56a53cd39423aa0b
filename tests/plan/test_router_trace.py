"""Skew out of what a router did."""

import json

import numpy as np
import pytest
from planning import question

from rackscale.core import SpecError
from rackscale.cost.expert_load import chances
from rackscale.plan.router_trace import skew_of

SPEC = question().model.spec  # 128 experts, 8 of them a token's


@pytest.mark.parametrize("skew", [0.0, 0.4, 0.9])
@pytest.mark.parametrize("suffix", ["csv", "json"])
def test_the_exponent_that_made_the_loads(tmp_path, skew, suffix):
    layers = [np.roll(1e6 * chances(128, 8, skew), shift) for shift in (0, 50)]
    path = tmp_path / f"trace.{suffix}"
    rows = [[float(load) for load in layer] for layer in layers]
    path.write_text(
        json.dumps(rows) if suffix == "json" else "\n".join(",".join(map(str, row)) for row in rows)
    )
    assert skew_of(path, SPEC) == pytest.approx(skew, abs=0.01)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("a,b", "is no table of numbers"),
        ("", "is no table of numbers"),
        ("1,2\n3", "is no table of numbers"),
        ("nan,1", "is no table of numbers"),
        ("1,2", "has 2 experts, and the model 128"),
        (",".join(["0"] * 128), "has layers without tokens"),
        (",".join(["-1"] * 128), "or fewer than none"),
    ],
)
def test_what_is_no_trace_is_refused(tmp_path, text, what):
    path = tmp_path / "trace.csv"
    path.write_text(text)
    with pytest.raises(SpecError, match=what):
        skew_of(path, SPEC)


def test_no_file_and_no_experts(tmp_path):
    with pytest.raises(SpecError, match="cannot be read"):
        skew_of(tmp_path / "none.csv", SPEC)
