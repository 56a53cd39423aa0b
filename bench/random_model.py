"""A checkpoint of a given shape with random weights, for benches: no tokenizer, and nothing that it says
means anything."""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

OLMOE_HIDDEN, OLMOE_WIDTH, OLMOE_EXPERTS, OLMOE_TOP_K, OLMOE_HEADS = 2048, 1024, 64, 8, 16
VOCAB = 1024
GOOD_STD = 0.02


def olmoe_shaped(folder: Path, num_layers: int) -> Path:
    """Layers of OLMoE-1B-7B's shape (0.8 GB of experts each in bf16) under a small vocabulary."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "architectures": ["OlmoeForCausalLM"],
        "model_type": "olmoe",
        "hidden_size": OLMOE_HIDDEN,
        "intermediate_size": OLMOE_WIDTH,
        "num_hidden_layers": num_layers,
        "num_attention_heads": OLMOE_HEADS,
        "num_key_value_heads": OLMOE_HEADS,
        "num_experts": OLMOE_EXPERTS,
        "num_experts_per_tok": OLMOE_TOP_K,
        "norm_topk_prob": False,
        "hidden_act": "silu",
        "max_position_embeddings": 1024,
        "rms_norm_eps": 1e-5,
        "rope_parameters": {"rope_theta": 10000.0, "rope_type": "default"},
        "clip_qkv": None,
        "attention_bias": False,
        "tie_word_embeddings": False,
        "vocab_size": VOCAB,
        "bos_token_id": 0,
        "eos_token_id": 1,
        "dtype": "bfloat16",
    }
    (folder / "config.json").write_text(json.dumps(config))
    generator = torch.Generator().manual_seed(0)

    def drawn(*shape: int) -> torch.Tensor:
        return torch.empty(shape, dtype=torch.bfloat16).normal_(0, GOOD_STD, generator=generator)

    tensors = {
        "model.embed_tokens.weight": drawn(VOCAB, OLMOE_HIDDEN),
        "lm_head.weight": drawn(VOCAB, OLMOE_HIDDEN),
        "model.norm.weight": torch.ones(OLMOE_HIDDEN, dtype=torch.bfloat16),
    }
    for number in range(num_layers):
        layer = f"model.layers.{number}"
        for norm in ("input_layernorm", "post_attention_layernorm", "self_attn.q_norm", "self_attn.k_norm"):
            tensors[f"{layer}.{norm}.weight"] = torch.ones(OLMOE_HIDDEN, dtype=torch.bfloat16)
        for part in "qkvo":
            tensors[f"{layer}.self_attn.{part}_proj.weight"] = drawn(OLMOE_HIDDEN, OLMOE_HIDDEN)
        tensors[f"{layer}.mlp.gate.weight"] = drawn(OLMOE_EXPERTS, OLMOE_HIDDEN)
        for expert in range(OLMOE_EXPERTS):
            name = f"{layer}.mlp.experts.{expert}"
            tensors[f"{name}.gate_proj.weight"] = drawn(OLMOE_WIDTH, OLMOE_HIDDEN)
            tensors[f"{name}.up_proj.weight"] = drawn(OLMOE_WIDTH, OLMOE_HIDDEN)
            tensors[f"{name}.down_proj.weight"] = drawn(OLMOE_HIDDEN, OLMOE_WIDTH)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder
