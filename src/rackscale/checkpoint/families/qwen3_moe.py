"""Qwen3-MoE: grouped-query attention with a norm on each head's query and key, a softmax router."""

from rackscale.checkpoint.families.common import common, head_dim, num_layers
from rackscale.checkpoint.fields import Fields
from rackscale.checkpoint.roles import GQA_NAMES, Names
from rackscale.checkpoint.rope import read_rope
from rackscale.core import SpecError
from rackscale.specs import GqaSpec, LayerSpec, ModelSpec, MoeSpec, QkNorm, RouterSpec, Scoring

NAMES = Names(attn=GQA_NAMES)


def read(config: Fields) -> ModelSpec:
    """The spec. Raises SpecError where a field is missing or not implemented."""
    bias = config.get("attention_bias", bool, default=False)
    dim = head_dim(config)
    return ModelSpec(
        family="qwen3_moe",
        attention=GqaSpec(
            num_heads=config.size("num_attention_heads"),
            num_kv_heads=config.size("num_key_value_heads"),
            head_dim=dim,
            qk_norm=QkNorm.HEAD,
            qkv_bias=bias,
            out_bias=bias,
        ),
        rope=read_rope(config, dim),
        layers=_layers(config),
        dense_width=config.size("intermediate_size"),
        moe=MoeSpec(
            router=RouterSpec(
                num_experts=config.first_size("num_experts", "num_local_experts"),
                top_k=config.size("num_experts_per_tok"),
                scoring=Scoring.SOFTMAX,
                renormalise=config.get("norm_topk_prob", bool, default=False),
            ),
            width=config.size("moe_intermediate_size"),
        ),
        **common(config),
    )


def _layers(config: Fields) -> tuple[LayerSpec, ...]:
    every = config.size("decoder_sparse_step", 1)
    dense = config.values.get("mlp_only_layers") or []
    if not isinstance(dense, list):
        raise SpecError(f"mlp_only_layers in {config.path} is {dense!r}", hint="it must be a list")
    window = None
    if config.get("use_sliding_window", bool, default=False):
        window = config.optional("sliding_window", int)
    return tuple(
        LayerSpec(moe=number not in dense and (number + 1) % every == 0, window=window)
        for number in range(num_layers(config))
    )
