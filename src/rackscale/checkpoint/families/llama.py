"""Llama and what is built like it: the case without experts."""

from rackscale.checkpoint.families.common import common, head_dim, uniform_layers
from rackscale.checkpoint.fields import Fields
from rackscale.checkpoint.roles import GQA_NAMES, Names
from rackscale.checkpoint.rope import read_rope
from rackscale.specs import GqaSpec, ModelSpec

NAMES = Names(attn=GQA_NAMES)


def read(config: Fields) -> ModelSpec:
    """The spec. Raises SpecError where a field is missing or not implemented."""
    bias = config.get("attention_bias", bool, default=False)
    dim = head_dim(config)
    heads = config.size("num_attention_heads")
    return ModelSpec(
        family="llama",
        attention=GqaSpec(
            num_heads=heads,
            num_kv_heads=config.size("num_key_value_heads", heads),
            head_dim=dim,
            qkv_bias=bias,
            out_bias=bias,
        ),
        rope=read_rope(config, dim),
        layers=uniform_layers(config, moe=False),
        dense_width=config.size("intermediate_size"),
        moe=None,
        mlp_bias=config.get("mlp_bias", bool, default=False),
        **common(config),
    )
