"""gpt-oss (arXiv 2508.10925): attention sinks, a sliding window on every other layer, biases everywhere, a
clamped SwiGLU, and all experts of a layer in one tensor, gate and up interleaved."""

from rackscale.checkpoint.families.common import common, head_dim, num_layers
from rackscale.checkpoint.fields import Fields
from rackscale.checkpoint.roles import GQA_NAMES, Names
from rackscale.checkpoint.rope import read_rope
from rackscale.core import SpecError
from rackscale.specs import Activation, GqaSpec, LayerSpec, ModelSpec, MoeSpec, RouterSpec, Scoring

NAMES = Names(
    attn=GQA_NAMES,
    router="mlp.router.weight",
    router_bias="mlp.router.bias",
    fused_experts="mlp.experts",
)
WINDOWED = "sliding_attention"
FULL = "full_attention"


def read(config: Fields) -> ModelSpec:
    """The spec. Raises SpecError where a field is missing or not implemented."""
    dim = head_dim(config)
    bias = config.get("attention_bias", bool, default=True)
    width = config.size("intermediate_size")
    return ModelSpec(
        family="gpt_oss",
        attention=GqaSpec(
            num_heads=config.size("num_attention_heads"),
            num_kv_heads=config.size("num_key_value_heads"),
            head_dim=dim,
            qkv_bias=bias,
            out_bias=bias,
            sinks=True,
        ),
        rope=read_rope(config, dim),
        layers=_layers(config),
        dense_width=width,
        moe=MoeSpec(
            router=RouterSpec(
                num_experts=config.size("num_local_experts"),
                top_k=config.size("num_experts_per_tok"),
                scoring=Scoring.TOPK_SOFTMAX,
                bias=True,
                renormalise=False,
            ),
            width=width,
            activation=Activation.SWIGLU_CLAMPED,
            expert_bias=True,
            swiglu_alpha=config.get("swiglu_alpha", float, 1.702),
            swiglu_limit=config.get("swiglu_limit", float, 7.0),
        ),
        **common(config),
    )


def _layers(config: Fields) -> tuple[LayerSpec, ...]:
    count, window = num_layers(config), config.optional("sliding_window", int)
    kinds = config.values.get("layer_types")
    if kinds is None:
        kinds = [WINDOWED if number % 2 == 0 else FULL for number in range(count)]
    if not isinstance(kinds, list) or len(kinds) != count or any(k not in (WINDOWED, FULL) for k in kinds):
        raise SpecError(
            f"layer_types in {config.path} is {kinds!r}",
            hint=f"it must name {WINDOWED} or {FULL} for each of {count} layers",
        )
    return tuple(LayerSpec(moe=True, window=window if kind == WINDOWED else None) for kind in kinds)
