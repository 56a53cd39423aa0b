"""Counts against transformers 5.23.0, which built each model from its configuration on the meta device."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rackscale.specs import (
    GqaSpec,
    LayerSpec,
    MlaSpec,
    ModelSpec,
    MoeSpec,
    QkNorm,
    RopeSpec,
    RouterSpec,
    Scoring,
)
from rackscale.specs.catalog import load_model, names
from rackscale.specs.counts import count, kv_bytes_per_token

# name: total, active, active without the input embedding, KV bytes a token in BF16 and in FP8. DeepSeek-V3.2
# is not here: transformers counts its indexer, which a ModelSpec does not have.
TRANSFORMERS = {
    "deepseek-r1": (671026404352, 37552282624, 36625603584, 70272, 35136),
    "deepseek-v2-lite": (15706484224, 2661150208, 2451435008, 31104, 15552),
    "deepseek-v3": (671026404352, 37552282624, 36625603584, 70272, 35136),
    "glm-4.5": (352797814784, 33632251904, 32856305664, 376832, 188416),
    "glm-4.6": (352797814784, 33632251904, 32856305664, 376832, 188416),
    "gpt-oss-120b": (116829156672, 5711982912, 5132849472, 73728, 36864),
    "gpt-oss-20b": (20914757184, 4187440704, 3608307264, 49152, 24576),
    "kimi-k2-instruct": (1026408209408, 32861477888, 31687072768, 70272, 35136),
    "kimi-k2-thinking": (1026408209408, 32861477888, 31687072768, 70272, 35136),
    "kimi-k2.5": (1026408209408, 32861477888, 31687072768, 70272, 35136),
    "llama-4-maverick": (400711848960, 17184691200, 16150205440, 196608, 98304),
    "minimax-m2": (228689748992, 11030537216, 10415940608, 253952, 126976),
    "mixtral-8x22b": (140620634112, 39152031744, 38955423744, 229376, 114688),
    "mixtral-8x7b": (46702792704, 12879925248, 12748853248, 131072, 65536),
    "olmoe-1b-7b": (6919161856, 1282017280, 1178994688, 131072, 65536),
    "qwen3-235b-a22b": (235093634560, 22190763520, 21568433664, 192512, 96256),
    "qwen3-30b-a3b": (30532122624, 3353032704, 3041867776, 98304, 49152),
}
# What publishers print, in 1e9: total and active. DeepSeek's active leaves out an embedding, gpt-oss's too.
PUBLISHED = {
    "deepseek-v3": (671, 36.7),
    "kimi-k2-instruct": (1026, 32),
    "gpt-oss-120b": (116.8, 5.1),
    "olmoe-1b-7b": (6.9, 1.3),
    "mixtral-8x7b": (46.7, 12.9),
    "qwen3-235b-a22b": (235, 22),
    "qwen3-30b-a3b": (30.5, 3.3),
}


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_counts_are_those_of_transformers(name):
    total, active, active_no_embed, kv_bf16, kv_fp8 = TRANSFORMERS[name]
    spec = load_model(name).spec
    counts = count(spec)
    assert (counts.total, counts.active, counts.active_no_embed) == (total, active, active_no_embed)
    assert kv_bytes_per_token(spec, 2) == kv_bf16
    assert kv_bytes_per_token(spec, 1) == kv_fp8


def test_every_model_is_counted():
    assert set(names("models")) - set(TRANSFORMERS) == {"deepseek-v3.2"}
    assert count(load_model("deepseek-v3.2").spec) == count(load_model("deepseek-v3").spec)


@pytest.mark.parametrize("name", PUBLISHED)
def test_counts_are_near_what_is_printed(name):
    total, active = PUBLISHED[name]
    counts = count(load_model(name).spec)
    assert counts.total == pytest.approx(total * 1e9, rel=0.005)
    nearest = min((counts.active, counts.active_no_embed), key=lambda number: abs(number - active * 1e9))
    assert nearest == pytest.approx(active * 1e9, rel=0.02)


def test_parts_of_kimi_k2():
    counts = count(load_model("kimi-k2-thinking").spec)
    assert counts.expert == 3 * 7168 * 2048
    assert counts.shared_per_layer == counts.expert
    assert counts.router_per_layer == 384 * 7168
    assert counts.embedding == counts.head == 163840 * 7168
    assert counts.routed == 60 * 384 * counts.expert
    assert counts.num_moe_layers == 60


GQA = GqaSpec(num_heads=8, num_kv_heads=2, head_dim=16)
MLA = MlaSpec(num_heads=4, q_lora_rank=24, kv_lora_rank=32, nope_head_dim=16, rope_head_dim=8, v_head_dim=16)


def model(attention, moe=None, *, layers=2, **changes):
    return ModelSpec(
        family="test",
        vocab_size=100,
        hidden=64,
        attention=attention,
        rope=RopeSpec(theta=1e4, dim=8),
        layers=(LayerSpec(moe=moe is not None),) * layers,
        dense_width=128,
        moe=moe,
        norm_eps=1e-6,
        max_positions=512,
        tied_embeddings=changes.pop("tied_embeddings", False),
        **changes,
    )


def attention_of(attention):
    return count(model(attention)).attention_per_layer


def test_biases_norms_and_sinks_of_attention():
    plain = 64 * (2 * 128 + 2 * 32)
    assert attention_of(GQA) == plain
    assert attention_of(replace(GQA, qkv_bias=True)) == plain + 128 + 2 * 32
    assert attention_of(replace(GQA, out_bias=True)) == plain + 64
    assert attention_of(replace(GQA, sinks=True)) == plain + 8
    assert attention_of(replace(GQA, qk_norm=QkNorm.HEAD)) == plain + 2 * 16
    assert attention_of(replace(GQA, qk_norm=QkNorm.PROJECTION)) == plain + 128 + 32


def test_biases_of_latent_attention():
    biased = replace(MLA, bias=True)
    assert attention_of(biased) - attention_of(MLA) == 24 + (32 + 8) + 64
    direct, biased = replace(MLA, q_lora_rank=None), replace(MLA, q_lora_rank=None, bias=True)
    assert attention_of(biased) - attention_of(direct) == (32 + 8) + 64


def test_a_head_that_is_the_embedding_again_is_multiplied():
    counts = count(model(GQA, tied_embeddings=True))
    assert counts.head == 0
    assert counts.active_no_embed == counts.active == counts.total


def test_biases_of_dense_layers():
    assert count(model(GQA, mlp_bias=True)).dense_ffn_per_layer == 3 * 64 * 128 + 2 * 128 + 64


def test_a_model_without_experts_has_none():
    counts = count(model(GQA))
    assert counts.expert == counts.router_per_layer == counts.shared_per_layer == counts.routed == 0
    assert counts.active == counts.total


moes = st.builds(
    lambda experts, top_k, width, shared, bias: MoeSpec(
        router=RouterSpec(num_experts=experts, top_k=min(top_k, experts), scoring=Scoring.SOFTMAX, bias=bias),
        width=width,
        shared_width=shared,
        expert_bias=bias,
    ),
    st.integers(1, 64),
    st.integers(1, 8),
    st.integers(1, 64),
    st.integers(0, 64),
    st.booleans(),
)
models = st.builds(model, st.sampled_from([GQA, MLA]), st.none() | moes, layers=st.integers(1, 8))


@given(models)
def test_more_of_anything_is_more_parameters(spec):
    counts = count(spec)
    assert 0 < counts.active <= counts.total
    assert counts.active_no_embed == counts.active - 100 * 64
    grown = [replace(spec, layers=(*spec.layers, spec.layers[-1])), replace(spec, vocab_size=101)]
    if spec.moe is None:
        grown.append(replace(spec, dense_width=spec.dense_width + 1))
    else:
        router = replace(spec.moe.router, num_experts=spec.moe.router.num_experts + 1)
        grown += [
            replace(spec, moe=replace(spec.moe, width=spec.moe.width + 1)),
            replace(spec, moe=replace(spec.moe, shared_width=spec.moe.shared_width + 1)),
            replace(spec, moe=replace(spec.moe, router=router)),
        ]
    for larger in grown:
        assert count(larger).total > counts.total
        assert count(larger).active >= counts.active
        assert kv_bytes_per_token(larger, 2) >= kv_bytes_per_token(spec, 2)


@given(models)
def test_a_total_is_active_ones_and_experts_that_wait(spec):
    counts = count(spec)
    waiting = counts.num_moe_layers * (counts.num_experts - counts.top_k) * counts.expert
    assert counts.total == counts.active + waiting
