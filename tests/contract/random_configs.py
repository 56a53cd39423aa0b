"""Configurations of every family, drawn at random: tiny, and with sizes that divide nothing."""

import random

import transformers

FAMILIES = ("deepseek", "qwen3", "olmoe", "mixtral", "gpt_oss", "llama")
VOCAB = 96
MAX_POSITIONS = 256


def random_config(family, seed):
    """The same for the same seed."""
    rng = random.Random(f"{family} {seed}")
    return globals()[f"_{family}"](rng)


def _common(rng):
    return {
        "vocab_size": VOCAB,
        "hidden_size": rng.choice([24, 32, 40, 52]),
        "intermediate_size": rng.choice([16, 33, 48]),
        "num_hidden_layers": rng.choice([1, 2, 3]),
        "max_position_embeddings": MAX_POSITIONS,
        "rms_norm_eps": rng.choice([1e-6, 1e-5, 1e-3]),
        "tie_word_embeddings": rng.random() < 0.3,
        "rope_parameters": _rope(rng),
        "bos_token_id": 0,
        "eos_token_id": 1,
        "pad_token_id": None,
    }


def _rope(rng):
    kind = rng.choice(["default", "linear", "llama3", "yarn"])
    rope = {"rope_type": kind, "rope_theta": rng.choice([500.0, 10000.0, 1e6])}
    if kind != "default":
        rope["factor"] = rng.choice([1.0, 2.5, 8.0, 40.0])
    if kind == "llama3":
        rope["low_freq_factor"] = rng.choice([0.5, 1.0])
        rope["high_freq_factor"] = rng.choice([2.0, 4.0])
    if kind == "yarn":
        rope["beta_fast"], rope["beta_slow"] = rng.choice([(32, 1), (1, 1), (8.0, 0.5)])
        rope["truncate"] = rng.random() < 0.5
        if rng.random() < 0.3:
            rope["attention_factor"] = rng.choice([0.8, 1.3])
    if kind in {"llama3", "yarn"}:
        rope["original_max_position_embeddings"] = rng.choice([16, 64, 200])
    return rope


def _gqa(rng):
    key_heads = rng.choice([1, 2, 3])
    return {
        "num_key_value_heads": key_heads,
        "num_attention_heads": key_heads * rng.choice([1, 2, 3, 4, 5, 8]),
        "head_dim": rng.choice([2, 6, 10, 16, 20, 32]),
    }


def _experts(rng, count="num_local_experts"):
    experts = rng.choice([3, 4, 8, 17])
    return {count: experts, "num_experts_per_tok": rng.randint(1, min(experts, 4))}


def _deepseek(rng):
    groups = rng.choice([1, 1, 2, 4])
    inside = rng.choice([2, 3, 5])
    kept = rng.randint(1, groups)
    common = _common(rng)
    heads = rng.choice([1, 2, 3, 4, 6])
    if common["rope_parameters"]["rope_type"] == "yarn" and rng.random() < 0.7:
        common["rope_parameters"]["mscale"] = rng.choice([0.7, 1.0])
        common["rope_parameters"]["mscale_all_dim"] = rng.choice([0.9, 1.0])
    return transformers.DeepseekV3Config(
        **common,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        q_lora_rank=rng.choice([None, 7, 16]),
        kv_lora_rank=rng.choice([5, 16, 36]),
        qk_nope_head_dim=rng.choice([3, 12, 16]),
        qk_rope_head_dim=rng.choice([2, 6, 16]),
        v_head_dim=rng.choice([3, 10, 16]),
        rope_interleave=rng.random() < 0.8,
        attention_bias=rng.random() < 0.3,
        n_routed_experts=groups * inside,
        n_group=groups,
        topk_group=kept,
        num_experts_per_tok=rng.randint(1, min(kept * inside, 6)),
        n_shared_experts=rng.choice([1, 2]),
        moe_intermediate_size=rng.choice([5, 16, 20]),
        first_k_dense_replace=rng.choice([0, 1]),
        norm_topk_prob=rng.random() < 0.7,
        routed_scaling_factor=rng.choice([1.0, 2.5]),
    )


def _qwen3(rng):
    return transformers.Qwen3MoeConfig(
        **_common(rng),
        **_gqa(rng),
        **_experts(rng, "num_experts"),
        moe_intermediate_size=rng.choice([5, 16, 20]),
        decoder_sparse_step=rng.choice([1, 1, 2]),
        norm_topk_prob=rng.random() < 0.5,
        attention_bias=rng.random() < 0.3,
        use_sliding_window=False,
    )


def _olmoe(rng):
    heads = rng.choice([2, 4])
    return transformers.OlmoeConfig(
        **{**_common(rng), "hidden_size": heads * rng.choice([6, 10, 16])},
        **_experts(rng, "num_experts"),
        num_attention_heads=heads,
        num_key_value_heads=rng.choice([heads, heads // 2]),
        norm_topk_prob=rng.random() < 0.5,
        clip_qkv=rng.choice([None, 0.3, 2.0]),
        attention_bias=False,
    )


def _mixtral(rng):
    return transformers.MixtralConfig(
        **_common(rng), **_gqa(rng), **_experts(rng), sliding_window=rng.choice([None, 1, 5, 16, 100])
    )


def _gpt_oss(rng):
    return transformers.GptOssConfig(
        **_common(rng), **_gqa(rng), **_experts(rng), sliding_window=rng.choice([1, 6, 100])
    )


def _llama(rng):
    heads = _gqa(rng)
    hidden = {"hidden_size": heads["num_attention_heads"] * rng.choice([3, 4])}
    return transformers.LlamaConfig(
        **{**_common(rng), **heads, **hidden},
        attention_bias=rng.random() < 0.5,
        mlp_bias=rng.random() < 0.5,
    )
