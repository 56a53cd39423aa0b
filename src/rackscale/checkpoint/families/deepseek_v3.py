"""DeepSeek-V3 and R1, and Kimi K2 (arXiv 2412.19437): latent attention, a sigmoid router with a correction
bias and node-limited groups, shared experts, the first layers dense."""

from rackscale.checkpoint.families.common import common, num_layers
from rackscale.checkpoint.fields import Fields
from rackscale.checkpoint.roles import MLA_NAMES, Names
from rackscale.checkpoint.rope import read_rope
from rackscale.specs import LayerSpec, MlaSpec, ModelSpec, MoeSpec, RouterSpec, Scoring

NAMES = Names(attn=MLA_NAMES)


def read(config: Fields) -> ModelSpec:
    """The spec. Raises SpecError where a field is missing or not implemented."""
    config.require("scoring_func", "sigmoid")
    config.require("topk_method", "noaux_tc")
    config.require("moe_layer_freq", 1)
    rope_dim = config.size("qk_rope_head_dim")
    interleaved = config.get("rope_interleave", bool, default=True)
    dense = config.get("first_k_dense_replace", int, 0)
    return ModelSpec(
        family="deepseek_v3",
        attention=MlaSpec(
            num_heads=config.size("num_attention_heads"),
            q_lora_rank=config.optional("q_lora_rank", int),
            kv_lora_rank=config.size("kv_lora_rank"),
            nope_head_dim=config.size("qk_nope_head_dim"),
            rope_head_dim=rope_dim,
            v_head_dim=config.size("v_head_dim"),
            bias=config.get("attention_bias", bool, default=False),
        ),
        rope=read_rope(config, rope_dim, interleaved=interleaved, mscale=True),
        layers=tuple(LayerSpec(moe=number >= dense) for number in range(num_layers(config))),
        dense_width=config.size("intermediate_size"),
        moe=_moe(config),
        **common(config),
    )


def _moe(config: Fields) -> MoeSpec:
    width = config.size("moe_intermediate_size")
    return MoeSpec(
        router=RouterSpec(
            num_experts=config.first_size("n_routed_experts", "num_local_experts"),
            top_k=config.size("num_experts_per_tok"),
            scoring=Scoring.SIGMOID,
            correction_bias=True,
            num_groups=config.size("n_group", 1),
            topk_groups=config.size("topk_group", 1),
            renormalise=config.get("norm_topk_prob", bool, default=True),
            scale=config.get("routed_scaling_factor", float, 1.0),
        ),
        width=width,
        shared_width=width * config.get("n_shared_experts", int, 0),
    )
