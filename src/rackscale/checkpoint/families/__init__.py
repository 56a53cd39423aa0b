"""The architectures that this project runs: a reader of config.json and a table of names each."""

from collections.abc import Callable
from dataclasses import dataclass

from rackscale.checkpoint.families import deepseek_v3, gpt_oss, llama, mixtral, olmoe, qwen3_moe
from rackscale.checkpoint.fields import Fields
from rackscale.checkpoint.roles import Names
from rackscale.core import SpecError
from rackscale.specs import ModelSpec


@dataclass(frozen=True, kw_only=True, slots=True)
class Family:
    """How an architecture is read."""

    read: Callable[[Fields], ModelSpec]
    names: Names


FAMILIES = {
    "DeepseekV3ForCausalLM": Family(read=deepseek_v3.read, names=deepseek_v3.NAMES),
    "KimiK2ForCausalLM": Family(read=deepseek_v3.read, names=deepseek_v3.NAMES),
    "GptOssForCausalLM": Family(read=gpt_oss.read, names=gpt_oss.NAMES),
    "LlamaForCausalLM": Family(read=llama.read, names=llama.NAMES),
    "MixtralForCausalLM": Family(read=mixtral.read, names=mixtral.NAMES),
    "OlmoeForCausalLM": Family(read=olmoe.read, names=olmoe.NAMES),
    "Qwen3MoeForCausalLM": Family(read=qwen3_moe.read, names=qwen3_moe.NAMES),
}


def family_of(config: Fields) -> Family:
    """The family that a config.json names. Raises SpecError where it is not one of ours."""
    architectures = config.values.get("architectures")
    for name in architectures if isinstance(architectures, list) else ():
        if isinstance(name, str) and name in FAMILIES:
            return FAMILIES[name]
    raise SpecError(
        f"architectures in {config.path} is {architectures!r}",
        hint=f"supported: {', '.join(sorted(FAMILIES))}",
    )
