from dataclasses import replace

import pytest

from rackscale.core import SpecError
from rackscale.specs import (
    GqaSpec,
    LayerSpec,
    ModelSpec,
    MoeSpec,
    PoolLayout,
    Role,
    RopeSpec,
    RouterSpec,
    Scoring,
    lay_out,
    pools_of,
)

# A token takes 1 layer * 2 * 1 head * 1024 = 2048 elements, 8 KiB in fp32; a block of 16, 128 KiB.
MODEL = ModelSpec(
    family="test",
    vocab_size=100,
    hidden=64,
    attention=GqaSpec(num_heads=1, num_kv_heads=1, head_dim=1024),
    rope=RopeSpec(theta=1e4, dim=8),
    layers=(LayerSpec(moe=False),),
    dense_width=128,
    moe=None,
    norm_eps=1e-6,
    max_positions=1024,
    tied_embeddings=True,
)
BLOCKS_PER_GIB = 8192


def size(**sizes):
    deployment = lay_out(MODEL, name="m", **sizes)
    (group,) = deployment.groups
    return deployment, group


def test_without_sizes_every_row_can_be_full():
    deployment, group = size()
    assert deployment.max_model_len == 1024
    assert group.num_blocks == group.max_running * 1024 // 16
    assert group.num_ranks == 1


def test_rows_of_full_length_take_no_more_than_the_default_cache():
    _, group = size(max_running=1000, max_batched_tokens=1000)
    assert group.num_blocks == 4 * BLOCKS_PER_GIB


def test_a_given_cache_is_filled():
    _, group = size(kv_gib=0.5)
    assert group.num_blocks == BLOCKS_PER_GIB // 2


def test_half_the_bytes_hold_twice_the_blocks():
    _, group = size(kv_gib=0.5, bytes_per_element=2)
    assert group.num_blocks == BLOCKS_PER_GIB


@pytest.mark.parametrize(
    ("sizes", "what"),
    [
        ({"block_size": 0}, "--block-size is 0"),
        ({"max_batched_tokens": 0}, "--max-batched-tokens is 0"),
        ({"max_running": -1}, "--max-running is -1"),
        ({"max_model_len": 0}, "--max-model-len is 0"),
        ({"max_model_len": 1025}, "beyond the model's 1024 positions"),
        ({"kv_gib": 0.001}, "give --kv-gib 0.0078 or more"),
        ({"kv_gib": -1.0}, "does not hold one sequence"),
    ],
)
def test_sizes_that_cannot_be(sizes, what):
    with pytest.raises(SpecError, match=what):
        size(**sizes)


def test_the_cache_is_for_all_ranks_together():
    deployment = lay_out(MODEL, name="m", kv_gib=0.5, layout=(PoolLayout(num_ranks=4),))
    assert deployment.groups[0].num_blocks == BLOCKS_PER_GIB // 8
    with pytest.raises(SpecError, match=r"on each of 4 ranks: give --kv-gib 0.031 or more"):
        lay_out(MODEL, name="m", kv_gib=0.01, layout=(PoolLayout(num_ranks=4),))


def test_ranks_that_share_an_attention_share_its_cache():
    pool = PoolLayout(num_ranks=4, tp=2)
    model = replace(MODEL, attention=replace(MODEL.attention, num_heads=2, num_kv_heads=2, head_dim=512))
    (group,) = lay_out(model, name="m", kv_gib=0.5, layout=(pool,)).groups
    assert group.num_blocks == BLOCKS_PER_GIB // 4
    assert group.num_seats == 2


@pytest.mark.parametrize(
    ("num_ranks", "redundant", "expected"), [(2, 0, 0), (3, 0, 1), (8, 1, 8), (72, 0, 64)]
)
def test_redundant_experts_fill_up_the_slots(num_ranks, redundant, expected):
    router = RouterSpec(num_experts=8, top_k=2, scoring=Scoring.SOFTMAX)
    model = replace(MODEL, moe=MoeSpec(router=router, width=16), layers=(LayerSpec(moe=True),))
    pool = PoolLayout(num_ranks=num_ranks, redundant_experts=redundant)
    deployment = lay_out(model, name="m", layout=(pool,))
    assert deployment.groups[0].redundant_experts == expected
    assert (deployment.num_experts, deployment.num_moe_layers) == (8, 1)


def test_layouts_of_the_command_line():
    assert pools_of(mixed=None, prefill=None, decode=None) == (PoolLayout(),)
    assert pools_of(mixed=3, prefill=None, decode=None) == (PoolLayout(num_ranks=3),)
    assert pools_of(mixed=None, prefill=None, decode=None, tp=2) == (PoolLayout(num_ranks=2, tp=2),)
    assert pools_of(mixed=None, prefill=1, decode=2) == (
        PoolLayout(role=Role.PREFILL),
        PoolLayout(role=Role.DECODE, num_ranks=2),
    )


@pytest.mark.parametrize(
    ("words", "what"),
    [
        ({"mixed": 1, "prefill": 1}, "--mixed with --prefill or --decode"),
        ({"mixed": 1, "decode": 1}, "--mixed with --prefill or --decode"),
        ({"prefill": 1}, "give both"),
        ({"decode": 1}, "give both"),
        ({"mixed": 0}, "--mixed is 0"),
        ({"mixed": 3, "tp": 2}, "--tp 2 does not divide --mixed 3"),
        ({"prefill": 3, "decode": 1, "tp": 2}, "--tp 2 does not divide --prefill 3"),
        ({"prefill": 1, "decode": -1}, "--decode is -1"),
    ],
)
def test_layouts_that_cannot_be(words, what):
    with pytest.raises(SpecError, match=what):
        pools_of(**{"mixed": None, "prefill": None, "decode": None, **words})
