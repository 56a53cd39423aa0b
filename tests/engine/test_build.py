from dataclasses import replace

import pytest
from world import small

from rackscale.core import SpecError
from rackscale.engine import build
from rackscale.specs import Role


@pytest.mark.parametrize(
    ("sizes", "what"),
    [
        ({"groups": 0}, "the deployment has groups 0"),
        ({"max_model_len": 0}, "the deployment has max_model_len 0"),
        ({"max_waiting": 0}, "the deployment has max_waiting 0"),
        ({"max_in_flight": 0}, "the deployment has max_in_flight 0"),
        ({"num_ranks": 0}, "group 0 has num_ranks 0"),
        ({"max_running": 0}, "group 0 has max_running 0"),
        ({"max_running": 17}, "group 0 steps over 16 tokens but runs 17 sequences"),
        ({"num_blocks": 9}, "group 0 has 9 blocks, and one sequence may need 10"),
        ({"role": Role.DECODE}, "all groups are for decode alone"),
        ({"role": Role.PREFILL}, "all groups are for prefill alone"),
        ({"num_ranks": 3, "tp": 2}, "group 0 has 3 ranks, of which tp 2 share"),
        ({"num_ranks": 3, "num_experts": 4}, "group 0 has 4 slots for experts, and 3 ranks"),
    ],
)
def test_a_deployment_that_cannot_live(sizes, what):
    with pytest.raises(SpecError, match=what) as caught:
        build(small(**sizes))
    assert caught.value.hint


def test_a_block_holds_a_token():
    with pytest.raises(SpecError, match="block_size 0"):
        build(replace(small(), block_size=0))


def test_an_engine_knows_its_deployment():
    assert build(small()).deployment == small()
