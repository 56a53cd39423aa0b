import math
from dataclasses import replace
from pathlib import Path

import pytest
from user_files import model, write

from rackscale.checkpoint.families import family_of
from rackscale.checkpoint.fields import Fields
from rackscale.core import SpecError
from rackscale.specs import (
    Activation,
    GqaSpec,
    LayerSpec,
    LinearScaling,
    Llama3Scaling,
    MlaSpec,
    QkNorm,
    Scoring,
    YarnScaling,
)
from rackscale.specs.catalog import load_model

MLA = {
    "kind": "mla",
    "num_heads": 8,
    "kv_lora_rank": 32,
    "nope_head_dim": 16,
    "rope_head_dim": 8,
    "v_head_dim": 16,
}
ROUTER = {"num_experts": 16, "top_k": 4, "scoring": "sigmoid"}

# What the publishers' config.json have (sources in the catalog's files).
DEEPSEEK_R1 = {
    "architectures": ["DeepseekV3ForCausalLM"],
    "first_k_dense_replace": 3,
    "hidden_size": 7168,
    "intermediate_size": 18432,
    "kv_lora_rank": 512,
    "max_position_embeddings": 163840,
    "moe_intermediate_size": 2048,
    "n_group": 8,
    "n_routed_experts": 256,
    "n_shared_experts": 1,
    "num_attention_heads": 128,
    "num_experts_per_tok": 8,
    "num_hidden_layers": 61,
    "q_lora_rank": 1536,
    "qk_nope_head_dim": 128,
    "qk_rope_head_dim": 64,
    "rms_norm_eps": 1e-6,
    "rope_scaling": {
        "beta_fast": 32,
        "beta_slow": 1,
        "factor": 40,
        "mscale": 1.0,
        "mscale_all_dim": 1.0,
        "original_max_position_embeddings": 4096,
        "type": "yarn",
    },
    "rope_theta": 10000,
    "routed_scaling_factor": 2.5,
    "topk_group": 4,
    "v_head_dim": 128,
    "vocab_size": 129280,
}
KIMI_K2_INSTRUCT = DEEPSEEK_R1 | {
    "first_k_dense_replace": 1,
    "max_position_embeddings": 131072,
    "n_group": 1,
    "n_routed_experts": 384,
    "num_attention_heads": 64,
    "rope_scaling": DEEPSEEK_R1["rope_scaling"] | {"beta_fast": 1, "factor": 32},
    "rope_theta": 50000,
    "routed_scaling_factor": 2.827,
    "topk_group": 1,
    "vocab_size": 163840,
}
GPT_OSS_120B = {
    "architectures": ["GptOssForCausalLM"],
    "head_dim": 64,
    "hidden_size": 2880,
    "intermediate_size": 2880,
    "max_position_embeddings": 131072,
    "num_attention_heads": 64,
    "num_experts_per_tok": 4,
    "num_hidden_layers": 36,
    "num_key_value_heads": 8,
    "num_local_experts": 128,
    "rms_norm_eps": 1e-5,
    "rope_scaling": {
        "beta_fast": 32.0,
        "beta_slow": 1.0,
        "factor": 32.0,
        "original_max_position_embeddings": 4096,
        "rope_type": "yarn",
        "truncate": False,
    },
    "rope_theta": 150000,
    "sliding_window": 128,
    "vocab_size": 201088,
}
QWEN3_30B = {
    "architectures": ["Qwen3MoeForCausalLM"],
    "head_dim": 128,
    "hidden_size": 2048,
    "intermediate_size": 6144,
    "max_position_embeddings": 40960,
    "moe_intermediate_size": 768,
    "norm_topk_prob": True,
    "num_attention_heads": 32,
    "num_experts": 128,
    "num_experts_per_tok": 8,
    "num_hidden_layers": 48,
    "num_key_value_heads": 4,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1000000.0,
    "vocab_size": 151936,
}
MIXTRAL_8X7B = {
    "architectures": ["MixtralForCausalLM"],
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "max_position_embeddings": 32768,
    "num_attention_heads": 32,
    "num_experts_per_tok": 2,
    "num_hidden_layers": 32,
    "num_key_value_heads": 8,
    "num_local_experts": 8,
    "rms_norm_eps": 1e-5,
    "rope_theta": 1000000.0,
    "vocab_size": 32000,
}
OLMOE = {
    "architectures": ["OlmoeForCausalLM"],
    "hidden_size": 2048,
    "intermediate_size": 1024,
    "max_position_embeddings": 4096,
    "num_attention_heads": 16,
    "num_experts": 64,
    "num_experts_per_tok": 8,
    "num_hidden_layers": 16,
    "num_key_value_heads": 16,
    "rms_norm_eps": 1e-5,
    "vocab_size": 50304,
}


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("deepseek-r1", DEEPSEEK_R1),
        ("deepseek-v3", DEEPSEEK_R1),
        ("kimi-k2-instruct", KIMI_K2_INSTRUCT),
        ("gpt-oss-120b", GPT_OSS_120B),
        ("gpt-oss-20b", GPT_OSS_120B | {"num_hidden_layers": 24, "num_local_experts": 32}),
        ("qwen3-30b-a3b", QWEN3_30B),
        ("mixtral-8x7b", MIXTRAL_8X7B),
        ("olmoe-1b-7b", OLMOE),
    ],
)
def test_the_catalog_has_what_a_checkpoints_config_gives(name, config):
    fields = Fields(config, Path("config.json"))
    read = family_of(fields).read(fields)
    ours = load_model(name).spec
    if read.rope.scaling is not None:
        assert ours.rope.scaling.softmax_mscale == pytest.approx(read.rope.scaling.softmax_mscale, rel=1e-12)
        ours = replace(ours, rope=replace(ours.rope, scaling=read.rope.scaling))
    assert ours == read


def spec(tmp_path, **config):
    return load_model(write(tmp_path / "m.toml", model(**config))).spec


def test_layers_with_experts_and_windows(tmp_path):
    layers = spec(tmp_path, num_layers=6, dense_layers=1, moe_every=2, windows=[8, 8, 0]).layers
    assert [layer.moe for layer in layers] == [False, True, False, True, False, True]
    assert [layer.window for layer in layers] == [8, 8, None, 8, 8, None]


def test_llama_4_alternates_and_looks_back_in_chunks():
    layers = load_model("llama-4-maverick").spec.layers
    assert layers[0] == LayerSpec(moe=False, window=8192)
    assert layers[3] == LayerSpec(moe=True)
    assert sum(layer.moe for layer in layers) == 24


def test_a_model_without_experts(tmp_path):
    dense = spec(tmp_path, moe=None, router=None, dense_layers=4, tied_embeddings=True, mlp_bias=True)
    assert dense.moe is None
    assert dense.tied_embeddings
    assert dense.mlp_bias


def test_latent_attention(tmp_path):
    attention = spec(tmp_path, attention=MLA | {"bias": True}).attention
    assert attention == MlaSpec(
        num_heads=8,
        q_lora_rank=None,
        kv_lora_rank=32,
        nope_head_dim=16,
        rope_head_dim=8,
        v_head_dim=16,
        bias=True,
    )
    assert spec(tmp_path, attention=MLA | {"q_lora_rank": 24}).attention.q_lora_rank == 24


def test_grouped_attention(tmp_path):
    given = {"kind": "gqa", "num_heads": 8, "num_kv_heads": 4, "head_dim": 16, "qk_norm": "head"}
    given |= {"qkv_bias": True, "out_bias": True, "sinks": True, "clip_qkv": 8}
    assert spec(tmp_path, attention=given).attention == GqaSpec(
        num_heads=8,
        num_kv_heads=4,
        head_dim=16,
        qk_norm=QkNorm.HEAD,
        qkv_bias=True,
        out_bias=True,
        sinks=True,
        clip_qkv=8.0,
    )


def test_experts_and_their_router(tmp_path):
    moe = {"width": 32, "shared_width": 48, "activation": "swiglu_clamped", "expert_bias": True}
    router = ROUTER | {"correction_bias": True, "num_groups": 4, "topk_groups": 2, "scale": 2.5, "bias": True}
    given = spec(tmp_path, moe=moe, router=router | {"renormalise": False}).moe
    assert given.activation is Activation.SWIGLU_CLAMPED
    assert given.shared_width == 48
    assert given.expert_bias
    assert given.router.scoring is Scoring.SIGMOID
    assert given.router.correction_bias
    assert (given.router.num_groups, given.router.topk_groups, given.router.scale) == (4, 2, 2.5)
    assert not given.router.renormalise


def test_scaled_ropes(tmp_path):
    def scaling(**given):
        return spec(tmp_path, rope={"theta": 1e4, "dim": 16, "scaling": given}).rope.scaling

    assert scaling(kind="linear", factor=2) == LinearScaling(factor=2)
    llama = {"factor": 8, "low_freq_factor": 1, "high_freq_factor": 4, "original_max_positions": 8192}
    assert scaling(kind="llama3", **llama) == Llama3Scaling(**llama)
    yarn = {"factor": 40.0, "original_max_positions": 4096, "attention_factor": 1.0}
    assert scaling(kind="yarn", **yarn) == YarnScaling(beta_fast=32.0, beta_slow=1.0, **yarn)
    assert load_model("gpt-oss-20b").spec.rope.scaling.attention_factor == pytest.approx(
        0.1 * math.log(32) + 1
    )


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"num_layers": 3, "dense_layers": 4}, "has num_layers = 3, dense_layers = 4"),
        ({"num_layers": 20_000}, "give at most 10000 layers"),
        ({"moe": None}, "has an unknown 'router'"),
        ({"moe": None, "router": None}, "has layers with experts and no [config.moe]"),
        ({"router": ROUTER | {"top_k": 17}}, "takes 17 experts a token, of 1 of 1 groups of 16 experts"),
        ({"router": ROUTER | {"num_groups": 3}}, "of 1 of 3 groups of 16 experts"),
        ({"router": ROUTER | {"topk_groups": 2}}, "of 2 of 1 groups of 16 experts"),
        (
            {"attention": {"kind": "gqa", "num_heads": 8, "num_kv_heads": 3, "head_dim": 16}},
            "has 8 query heads over 3 key heads",
        ),
        ({"attention": MLA | {"kind": "mqa"}}, "kind in {}, [config.attention] is 'mqa': give"),
        ({"rope": {"theta": 1e4}}, "{}, [config.rope] has no dim"),
        ({"rope": {"theta": 1e4, "dim": 8, "scaling": {"kind": "ntk"}}}, "is 'ntk': give one of linear"),
    ],
)
def test_sizes_that_contradict_each_other(tmp_path, config, message):
    path = tmp_path / "m.toml"
    with pytest.raises(SpecError) as error:
        spec(tmp_path, **config)
    assert message.format(path) in str(error.value)
