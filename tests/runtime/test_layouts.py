"""One model over many ranks: whatever the layout, the same tokens as one rank, and to the last bit the same
log-probabilities."""

import pytest
from golden_ranks import BLOCK, FAMILIES, GOLDEN, MAX_LEN, NATIVE_IS_BUILT

from rackscale.core import Request, Sampling
from rackscale.runtime.local import LocalOptions, open_local
from rackscale.specs import ONE_RANK, PoolLayout, Role

pytestmark = pytest.mark.skipif(not NATIVE_IS_BUILT, reason="ranks share memory through the native part")

LENGTHS = (1, 19, 3, 40, 7, 12, 2)  # of prompts; more than most layouts have ranks, fewer than the widest


def requests():
    return [
        Request(
            id=f"r{number}",
            prompt=tuple((number * 31 + 7 * at) % 90 + 2 for at in range(length)),
            max_tokens=5 + number,
            sampling=Sampling(temperature=0.0, num_logprobs=0),
        )
        for number, length in enumerate(LENGTHS)
    ]


def outputs(family, layout, **changes):
    options = LocalOptions(
        **{
            "layout": layout,
            "max_model_len": MAX_LEN,
            "kv_gib": 0.05,
            "block_size": BLOCK,
            "max_batched_tokens": 16,
            "max_running": 3,
            "tokenizer_required": False,
            **changes,
        }
    )
    with open_local(GOLDEN / family, options) as local:
        done = local.driver.run(requests())
    return {
        name: (completion.token_ids, [entry.logprob for entry in completion.logprobs])
        for name, completion in done.items()
    }


def tokens(said):
    return {name: token_ids for name, (token_ids, _) in said.items()}


@pytest.fixture(scope="module")
def alone():
    known = {}

    def of(family):
        if family not in known:
            known[family] = outputs(family, ONE_RANK)
        return known[family]

    return of


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("num_ranks", [2, 3, 4, 8])
def test_expert_parallel(family, num_ranks, alone):
    assert outputs(family, (PoolLayout(num_ranks=num_ranks),)) == alone(family)


@pytest.mark.parametrize("family", FAMILIES)
def test_prefill_and_decode_apart(family, alone, monkeypatch):
    monkeypatch.setattr("rackscale.policy.pools.UNKNOWN_TOKENS", 4)
    layout = (PoolLayout(role=Role.PREFILL, num_ranks=1), PoolLayout(role=Role.DECODE, num_ranks=2))
    assert outputs(family, layout) == alone(family)


def test_redundant_experts(alone):
    layout = (PoolLayout(num_ranks=4, redundant_experts=4),)
    assert outputs("deepseek_v3", layout) == alone("deepseek_v3")
    slow = outputs("deepseek_v3", layout, kernels="reference")
    assert tokens(slow) == tokens(alone("deepseek_v3"))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    "changes", [{"max_batched_tokens": 64}, {"max_batched_tokens": 7}, {"max_running": 1}]
)
def test_company_and_chunks(family, changes, alone):
    sizes = {"max_running": 7, "max_batched_tokens": 16, **changes}
    assert outputs(family, ONE_RANK, **sizes) == alone(family)
