import json

import pytest

from rackscale.measure import Outcome, RequestRecord, measure, point
from rackscale.specs import DeploymentSpec, GroupSpec, Role

RECORD = RequestRecord(
    id="a",
    outcome=Outcome.FINISHED,
    arrived_s=0.0,
    ended_s=2.0,
    token_times_s=(1.0, 1.5, 2.0),
    num_prompt=9,
    num_cached=0,
)


def deployment(*groups):
    return DeploymentSpec(model="m", groups=groups, max_model_len=32)


def group(num_ranks, role=Role.MIXED, max_batched_tokens=16):
    return GroupSpec(
        role=role,
        num_ranks=num_ranks,
        num_blocks=8,
        max_running=2,
        max_batched_tokens=max_batched_tokens,
    )


def test_a_point_of_two_chips():
    result = point(measure([RECORD]), deployment=deployment(group(2)), decode_batch_per_rank=1.0)
    assert result["tokens_per_s_per_chip"] == pytest.approx(12 / 2 / 2)
    assert result["output_tokens_per_s_per_chip"] == pytest.approx(3 / 2 / 2)
    assert result["tokens_per_s_per_user"] == pytest.approx(2.0)
    assert result["ttft_s"] == {"mean": 1.0, "p50": 1.0, "p99": 1.0}
    assert result["tpot_ms"] == pytest.approx({"mean": 500.0, "p50": 500.0, "p99": 500.0})
    assert (result["chips"], result["concurrency"]) == (2, 1.0)
    assert result["prefill"] == {"groups": 1, "ranks": 2, "tp": 1, "ep": 2, "batch_tokens": 16}
    assert result["decode"] == {
        "groups": 1,
        "ranks": 2,
        "tp": 1,
        "ep": 2,
        "batch_per_rank": 1.0,
        "redundant_experts": None,
    }


def test_what_groups_do_not_have_in_common_is_unknown():
    mixed = deployment(group(2), group(4, max_batched_tokens=8))
    result = point(measure([RECORD]), deployment=mixed)
    assert result["prefill"] == {"groups": 2, "ranks": 6, "tp": 1, "ep": None, "batch_tokens": None}


def test_a_pool_is_the_groups_of_its_role():
    split = deployment(group(2, Role.PREFILL), group(4, Role.DECODE))
    result = point(measure([RECORD]), deployment=split)
    assert (result["prefill"]["ranks"], result["decode"]["ranks"]) == (2, 4)


def test_what_cannot_be_known_is_null():
    result = point(measure([]))
    latencies = {"mean": None, "p50": None, "p99": None}
    assert result.pop("ttft_s") == result.pop("tpot_ms") == latencies
    assert set(result.values()) == {None}
    assert json.loads(json.dumps(result)) == result
