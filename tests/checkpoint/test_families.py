"""config.json of every family, as transformers writes it: any size, read as it is meant."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

transformers = pytest.importorskip("transformers")

from rackscale.checkpoint.families import FAMILIES, family_of  # noqa: E402 (behind the skip)
from rackscale.checkpoint.fields import Fields  # noqa: E402
from rackscale.checkpoint.roles import sources  # noqa: E402
from rackscale.specs import GqaSpec, MlaSpec, ModelSpec, YarnScaling  # noqa: E402

CONFIGS = {
    "DeepseekV3ForCausalLM": transformers.DeepseekV3Config,
    "GptOssForCausalLM": transformers.GptOssConfig,
    "LlamaForCausalLM": transformers.LlamaConfig,
    "MixtralForCausalLM": transformers.MixtralConfig,
    "OlmoeForCausalLM": transformers.OlmoeConfig,
    "Qwen3MoeForCausalLM": transformers.Qwen3MoeConfig,
}
SMALL = st.integers(min_value=1, max_value=6)


def read(config: Any, architecture: str) -> ModelSpec:
    """The spec of what transformers would save."""
    values = json.loads(json.dumps({**config.to_dict(), "architectures": [architecture]}))
    fields = Fields(values, Path("config.json"))
    return family_of(fields).read(fields)


@st.composite
def settings_of(draw: st.DrawFn) -> dict[str, Any]:
    """Fields that all of the families have."""
    kv_heads = draw(SMALL)
    experts = draw(st.integers(min_value=4, max_value=40))
    return {
        "vocab_size": draw(st.integers(min_value=8, max_value=500)),
        "hidden_size": 24 * kv_heads * draw(SMALL),
        "intermediate_size": draw(st.integers(min_value=1, max_value=99)),
        "num_hidden_layers": draw(SMALL),
        "num_attention_heads": kv_heads * draw(st.integers(min_value=1, max_value=3)),
        "num_key_value_heads": kv_heads,
        "head_dim": 2 * draw(st.integers(min_value=1, max_value=16)),
        "num_experts_per_tok": draw(st.integers(min_value=1, max_value=4)),
        "num_local_experts": experts,
        "tie_word_embeddings": draw(st.booleans()),
        "rms_norm_eps": draw(st.sampled_from([1e-5, 1e-6])),
        "max_position_embeddings": draw(st.integers(min_value=16, max_value=4096)),
        "attention_bias": draw(st.booleans()),
        "rope_parameters": draw(ROPES),
    }


ROPES = st.sampled_from(
    [
        {"rope_type": "default", "rope_theta": 5e5},
        {"rope_type": "linear", "rope_theta": 1e4, "factor": 4.0},
        {"rope_type": "yarn", "rope_theta": 1e4, "factor": 8.0, "original_max_position_embeddings": 16},
        {
            "rope_type": "llama3",
            "rope_theta": 5e5,
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 16,
        },
    ]
)


@pytest.mark.parametrize("architecture", CONFIGS)
@settings(max_examples=25)
@given(fields=settings_of(), moe_width=SMALL)
def test_any_config_of_transformers(architecture: str, fields: dict[str, Any], moe_width: int) -> None:
    experts = fields.pop("num_local_experts")
    config = CONFIGS[architecture](
        **fields, num_local_experts=experts, n_routed_experts=experts, moe_intermediate_size=moe_width
    )
    spec = read(config, architecture)
    assert (spec.hidden, spec.vocab_size) == (fields["hidden_size"], fields["vocab_size"])
    assert spec.num_layers == fields["num_hidden_layers"]
    assert (spec.tied_embeddings, spec.norm_eps) == (fields["tie_word_embeddings"], fields["rms_norm_eps"])
    assert spec.attention.num_heads == fields["num_attention_heads"]
    assert spec.rope.theta == fields["rope_parameters"]["rope_theta"]
    assert (spec.rope.scaling is None) == (fields["rope_parameters"]["rope_type"] == "default")
    if isinstance(spec.attention, GqaSpec):
        assert spec.attention.num_kv_heads == fields["num_key_value_heads"]
        assert spec.rope.dim == spec.attention.head_dim
    if spec.moe is not None:
        assert spec.moe.router.num_experts == experts
        assert spec.moe.router.top_k == fields["num_experts_per_tok"]
    roles = dict(sources(spec, FAMILIES[architecture].names))
    assert len(roles) > 3 + 6 * spec.num_layers


@pytest.mark.parametrize("architecture", CONFIGS)
def test_the_default_config_of_transformers(architecture: str) -> None:
    """Without arguments a config is that of the published model (DeepSeek-V3, gpt-oss-120b, ...)."""
    spec = read(CONFIGS[architecture](), architecture)
    expected = {
        "DeepseekV3ForCausalLM": (61, 7168, 128),
        "GptOssForCausalLM": (36, 2880, 64),
        "LlamaForCausalLM": (32, 4096, 32),
        "MixtralForCausalLM": (32, 4096, 32),
        "OlmoeForCausalLM": (16, 2048, 16),
        "Qwen3MoeForCausalLM": (24, 2048, 32),
    }
    assert (spec.num_layers, spec.hidden, spec.attention.num_heads) == expected[architecture]


def test_deepseek_v3_counts_its_parameters() -> None:
    """671 thousand million parameters (arXiv 2412.19437): every shape of every role is right."""
    architecture = "DeepseekV3ForCausalLM"
    spec = read(transformers.DeepseekV3Config(), architecture)
    assert isinstance(spec.attention, MlaSpec)
    shapes = {source.tensor: source.shape for _, source in sources(spec, FAMILIES[architecture].names)}
    total = 0
    for shape in shapes.values():
        count = 1
        for size in shape:
            count *= size
        total += count
    assert round(total / 1e9) == 671


def test_yarn_defaults() -> None:
    rope = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0}
    scaling = read(transformers.LlamaConfig(rope_parameters=rope), "LlamaForCausalLM").rope.scaling
    assert isinstance(scaling, YarnScaling)
    assert (scaling.beta_fast, scaling.beta_slow, scaling.truncate) == (32.0, 1.0, True)
    assert scaling.original_max_positions == 2048
    assert scaling.attention_factor == pytest.approx(1.1386, abs=1e-4)  # 0.1 * ln(4) + 1
