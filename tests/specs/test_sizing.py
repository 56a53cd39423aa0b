import pytest

from rackscale.core import SpecError
from rackscale.specs import GqaSpec, LayerSpec, ModelSpec, RopeSpec, one_rank

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
    deployment = one_rank(MODEL, name="m", **sizes)
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
