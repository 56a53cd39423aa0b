"""A rank's memory by what for."""

import pytest
from cases import GQA, model, work

from rackscale.plan.memory_shares import memory_shares


def shares(held, room, **layout):
    found = memory_shares(work(model(GQA), **layout), held, 1000.0, room)
    return {share.name: share.bytes for share in found}


def test_shares_add_up_to_the_chip():
    found = shares(10.0, 50.0)
    assert sum(found.values()) == pytest.approx(float(work().chips.hbm_bytes[0]))
    assert found["free for KV"] == pytest.approx(4 * found["KV cache"])
    assert found["routed experts"] == 3 * 16 * 3 * 64 * 32
    assert found["embedding and head"] == pytest.approx(2 * 1000 * 64 * 2)


def test_ranks_share_experts_and_caches():
    one, four = shares(8.0, 8.0), shares(8.0, 8.0, ranks=4.0, ep=4.0, tp=1.0)
    assert four["routed experts"] == one["routed experts"] / 4
    assert four["KV cache"] == one["KV cache"] / 4
    assert four["attention"] == one["attention"]


def test_a_split_attention_splits_its_cache_as_far_as_heads_go():
    one, two, four = (shares(8.0, 8.0, ranks=ranks, tp=ranks) for ranks in (1.0, 2.0, 4.0))
    assert two["KV cache"] == one["KV cache"] / 2
    assert four["KV cache"] == two["KV cache"]
