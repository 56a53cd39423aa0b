"""What all families spell alike."""

from typing import Any

from rackscale.checkpoint.fields import Fields
from rackscale.core import SpecError
from rackscale.specs import LayerSpec

MAX_LAYERS = 10_000  # a config that says more is damaged


def common(config: Fields, *, tied: bool = False) -> dict[str, Any]:
    """The fields of a ModelSpec that every config.json has under the same name.
    tied: what an absent tie_word_embeddings means."""
    config.require("hidden_act", "silu")
    dtype = config.optional("dtype", str) or config.optional("torch_dtype", str) or "bfloat16"
    return {
        "vocab_size": config.size("vocab_size"),
        "hidden": config.size("hidden_size"),
        "norm_eps": config.get("rms_norm_eps", float),
        "max_positions": config.size("max_position_embeddings"),
        "tied_embeddings": config.get("tie_word_embeddings", bool, default=tied),
        "dtype": dtype,
    }


def num_layers(config: Fields) -> int:
    """num_hidden_layers, within reason."""
    count = config.size("num_hidden_layers")
    if count > MAX_LAYERS:
        raise SpecError(
            f"num_hidden_layers in {config.path} is {count}", hint=f"at most {MAX_LAYERS} are read"
        )
    return count


def head_dim(config: Fields) -> int:
    """head_dim where it is given, or the hidden width over the heads."""
    given = config.optional("head_dim", int)
    return given or config.size("hidden_size") // config.size("num_attention_heads")


def uniform_layers(config: Fields, *, moe: bool, window: int | None = None) -> tuple[LayerSpec, ...]:
    """Layers that are all alike."""
    return (LayerSpec(moe=moe, window=window),) * num_layers(config)
