"""OLMoE (arXiv 2409.02060): a norm over all queries and one over all keys, a softmax router that is not
renormalised."""

from rackscale.checkpoint.families.common import common, head_dim, uniform_layers
from rackscale.checkpoint.fields import Fields
from rackscale.checkpoint.roles import GQA_NAMES, Names
from rackscale.checkpoint.rope import read_rope
from rackscale.specs import GqaSpec, ModelSpec, MoeSpec, QkNorm, RouterSpec, Scoring

NAMES = Names(attn=GQA_NAMES)


def read(config: Fields) -> ModelSpec:
    """The spec. Raises SpecError where a field is missing or not implemented."""
    bias = config.get("attention_bias", bool, default=False)
    dim = head_dim(config)
    width = config.size("intermediate_size")
    heads = config.size("num_attention_heads")
    return ModelSpec(
        family="olmoe",
        attention=GqaSpec(
            num_heads=heads,
            num_kv_heads=config.size("num_key_value_heads", heads),
            head_dim=dim,
            qk_norm=QkNorm.PROJECTION,
            qkv_bias=bias,
            out_bias=bias,
            clip_qkv=config.optional("clip_qkv", float),
        ),
        rope=read_rope(config, dim),
        layers=uniform_layers(config, moe=True),
        dense_width=width,
        moe=MoeSpec(
            router=RouterSpec(
                num_experts=config.first_size("num_experts", "num_local_experts"),
                top_k=config.size("num_experts_per_tok"),
                scoring=Scoring.SOFTMAX,
                renormalise=config.get("norm_topk_prob", bool, default=False),
            ),
            width=width,
        ),
        **common(config),
    )
