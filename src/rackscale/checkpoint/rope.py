"""Rotary embeddings as config.json spells them: `rope_parameters`, or `rope_theta` and `rope_scaling`."""

import math

from rackscale.checkpoint.fields import Fields
from rackscale.core import SpecError
from rackscale.specs import LinearScaling, Llama3Scaling, RopeScaling, RopeSpec, YarnScaling

DEFAULT_THETA = 10000.0


def read_rope(config: Fields, dim: int, *, interleaved: bool = False, mscale: bool = False) -> RopeSpec:
    """mscale: DeepSeek's variant of YaRN, whose mscale_all_dim also changes the softmax scale."""
    rope = config.sub("rope_parameters") or config.sub("rope_scaling") or Fields({}, config.path)
    theta = rope.positive("rope_theta", config.positive("rope_theta", DEFAULT_THETA))
    kind = rope.optional("rope_type", str) or rope.optional("type", str) or "default"
    return RopeSpec(
        theta=theta,
        dim=dim,
        interleaved=interleaved,
        scaling=_scaling(kind, rope, config, mscale=mscale),
    )


def _scaling(kind: str, rope: Fields, config: Fields, *, mscale: bool) -> RopeScaling | None:
    match kind:
        case "default":
            return None
        case "linear":
            return LinearScaling(factor=rope.positive("factor"))
        case "llama3":
            return Llama3Scaling(
                factor=rope.positive("factor"),
                low_freq_factor=rope.positive("low_freq_factor"),
                high_freq_factor=rope.positive("high_freq_factor"),
                original_max_positions=_original(rope, config),
            )
        case "yarn":
            return _yarn(rope, config, mscale=mscale)
    raise SpecError(f"rope type {kind!r} in {config.path}", hint="supported: default, linear, llama3, yarn")


def _original(rope: Fields, config: Fields) -> int:
    return rope.size("original_max_position_embeddings", config.size("max_position_embeddings"))


def _yarn(rope: Fields, config: Fields, *, mscale: bool) -> YarnScaling:
    factor = rope.positive("factor")
    given = rope.optional("attention_factor", float)
    one, all_dim = rope.optional("mscale", float), rope.optional("mscale_all_dim", float)
    if given is None:
        given = (
            yarn_mscale(factor, one) / yarn_mscale(factor, all_dim)
            if one and all_dim
            else yarn_mscale(factor, 1.0)
        )
    return YarnScaling(
        factor=factor,
        beta_fast=rope.positive("beta_fast", 32.0),
        beta_slow=rope.positive("beta_slow", 1.0),
        original_max_positions=_original(rope, config),
        attention_factor=given,
        softmax_mscale=yarn_mscale(factor, all_dim) if mscale and all_dim else 1.0,
        truncate=rope.get("truncate", bool, default=True),
    )


def yarn_mscale(factor: float, mscale: float) -> float:
    """0.1 * mscale * ln(factor) + 1 (YaRN, arXiv 2309.00071, eq. 22, as DeepSeek generalised it)."""
    return 1.0 if factor <= 1 else 0.1 * mscale * math.log(factor) + 1.0
