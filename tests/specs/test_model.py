from dataclasses import FrozenInstanceError, replace

import pytest

from rackscale.specs import GqaSpec, LayerSpec, MlaSpec, ModelSpec, RopeSpec

MLA = MlaSpec(
    num_heads=4, q_lora_rank=None, kv_lora_rank=32, nope_head_dim=16, rope_head_dim=8, v_head_dim=16
)
GQA = GqaSpec(num_heads=8, num_kv_heads=2, head_dim=16)


def spec(attention):
    return ModelSpec(
        family="test",
        vocab_size=100,
        hidden=64,
        attention=attention,
        rope=RopeSpec(theta=1e4, dim=8),
        layers=(LayerSpec(moe=False), LayerSpec(moe=False)),
        dense_width=128,
        moe=None,
        norm_eps=1e-6,
        max_positions=512,
        tied_embeddings=True,
    )


def test_latent_attention_caches_its_latent_and_the_rotated_key():
    assert spec(MLA).kv_elements_per_token == 2 * (32 + 8)


def test_grouped_attention_caches_keys_and_values_of_its_kv_heads():
    assert spec(GQA).kv_elements_per_token == 2 * 2 * 2 * 16


def test_a_spec_does_not_change():
    model = spec(GQA)
    with pytest.raises(FrozenInstanceError):
        model.hidden = 1
    assert replace(model, hidden=1).hidden == 1
