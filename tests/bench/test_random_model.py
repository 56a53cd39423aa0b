import importlib
import json
import sys
from pathlib import Path

import pytest
import torch

from rackscale.checkpoint import open_checkpoint

BENCH = Path(__file__).parents[2] / "bench"
SMALL = {"hidden_size": 64, "vocab_size": 96}


@pytest.fixture
def bench(monkeypatch):
    """What the benches make models with."""
    monkeypatch.syspath_prepend(str(BENCH))
    random_model, shapes = map(importlib.import_module, ("random_model", "shapes"))
    monkeypatch.setattr(random_model, "POOL", 2**17)
    yield random_model, shapes
    for name in ("random_model", "shapes"):
        del sys.modules[name]


def configs(shapes):
    kimi = {
        "intermediate_size": 128, "moe_intermediate_size": 32, "n_routed_experts": 8,
        "num_attention_heads": 2, "q_lora_rank": 32, "kv_lora_rank": 32,
        "qk_nope_head_dim": 16, "qk_rope_head_dim": 16, "v_head_dim": 16,
    }  # fmt: skip
    return {
        "olmoe": shapes.olmoe(num_layers=2) | SMALL | {"intermediate_size": 32, "num_experts": 8},
        "qwen3": shapes.qwen3_30b_a3b(num_layers=2) | SMALL | {"moe_intermediate_size": 32, "num_experts": 8},
        "kimi": shapes.kimi_k2(num_layers=2) | SMALL | kimi,
    }


@pytest.mark.parametrize("shape", ["olmoe", "qwen3", "kimi"])
def test_what_is_made_can_be_opened_and_has_weights_of_a_sane_size(bench, tmp_path, shape):
    random_model, shapes = bench
    _, bf16 = random_model.SHAPES[shape]
    random_model.random_model(tmp_path, configs(shapes)[shape], bf16=bf16)
    checkpoint = open_checkpoint(tmp_path, tokenizer_required=False)
    expert = checkpoint.tensor("layers.1.experts.3.down").float()
    assert 0.015 < expert.std() < 0.025
    assert checkpoint.packed("layers.1.experts.3.down") is not None
    assert (checkpoint.packed("head") is not None) == (shape == "olmoe")
    assert (checkpoint.packed("layers.1.attn.o") is not None) == (shape != "kimi")
    assert checkpoint.packed("layers.1.router") is None
    assert torch.equal(checkpoint.tensor("final_norm").float(), torch.ones(64))


def test_the_same_arguments_make_the_same_file_and_others_do_not(bench, tmp_path):
    random_model, shapes = bench
    config = configs(shapes)["olmoe"]
    made = [
        (random_model.random_model(tmp_path / name, config, seed=seed) / "model.safetensors").read_bytes()
        for name, seed in (("a", 0), ("b", 0), ("c", 1))
    ]
    assert made[0] == made[1] != made[2]


def test_shards_are_listed_and_aligned(bench, tmp_path, monkeypatch):
    random_model, shapes = bench
    monkeypatch.setattr(random_model, "SHARD_BYTES", 20_000)
    random_model.random_model(tmp_path, configs(shapes)["olmoe"], bf16=random_model.ALL_LINEAR)
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    assert len(set(index["weight_map"].values())) > 2
    checkpoint = open_checkpoint(tmp_path, tokenizer_required=False)
    for entry in checkpoint.metadata.tensors.values():
        assert entry.start % random_model.DTYPE_BYTES[entry.dtype] == 0
