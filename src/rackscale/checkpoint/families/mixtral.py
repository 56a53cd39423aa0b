"""Mixtral (arXiv 2401.04088): few large experts, a softmax router over the best two."""

from rackscale.checkpoint.families.common import common, head_dim, uniform_layers
from rackscale.checkpoint.fields import Fields
from rackscale.checkpoint.roles import GQA_NAMES, Names
from rackscale.checkpoint.rope import read_rope
from rackscale.specs import GqaSpec, ModelSpec, MoeSpec, RouterSpec, Scoring

NAMES = Names(
    attn=GQA_NAMES,
    router="block_sparse_moe.gate.weight",
    expert="block_sparse_moe.experts.{e}",
    expert_parts=("w1", "w3", "w2"),
)


def read(config: Fields) -> ModelSpec:
    """The spec. Raises SpecError where a field is missing or not implemented."""
    dim = head_dim(config)
    width = config.size("intermediate_size")
    return ModelSpec(
        family="mixtral",
        attention=GqaSpec(
            num_heads=config.size("num_attention_heads"),
            num_kv_heads=config.size("num_key_value_heads"),
            head_dim=dim,
        ),
        rope=read_rope(config, dim),
        layers=uniform_layers(config, moe=True, window=config.optional("sliding_window", int)),
        dense_width=width,
        moe=MoeSpec(
            router=RouterSpec(
                num_experts=config.size("num_local_experts"),
                top_k=config.size("num_experts_per_tok"),
                scoring=Scoring.SOFTMAX,
                renormalise=True,
            ),
            width=width,
        ),
        **common(config),
    )
