"""Kernels that move tokens to experts, and the families that they are of."""

from dataclasses import dataclass

from rackscale.core import SpecError
from rackscale.specs.catalog.table import closest

PHASES = ("prepare", "dispatch", "combine")


@dataclass(frozen=True, kw_only=True, slots=True)
class Family:
    """phases: steps that it takes. once_per_rank: a token crosses once to each rank, and once over the
    network to each domain, where it fans out; else once for each of its experts. leaves_domain: it can use
    the network. combine_is_bf16: whatever the format of dispatch."""

    phases: tuple[str, ...]
    once_per_rank: bool
    leaves_domain: bool
    combine_is_bf16: bool = False


FAMILIES = {
    "one_sided": Family(phases=("dispatch", "combine"), once_per_rank=True, leaves_domain=False),
    "two_sided": Family(phases=PHASES, once_per_rank=True, leaves_domain=False),
    "ll": Family(phases=("dispatch", "combine"), once_per_rank=False, leaves_domain=True),
    "ht": Family(
        phases=("dispatch", "combine"), once_per_rank=True, leaves_domain=True, combine_is_bf16=True
    ),
}

# As facts name them: TensorRT-LLM over NVLink, DeepEP by itself, in TensorRT-LLM, in vLLM.
KERNELS = {
    "NVLinkOneSided": "one_sided",
    "NVLinkTwoSided": "two_sided",
    "low_latency": "ll",
    "trtllm_deepep_ll": "ll",
    "deepep_ll": "ll",
    "deepep_v2_generation": "ll",
    "normal": "ht",
    "trtllm_deepep_ht": "ht",
    "deepep_ht": "ht",
    "deepep_v2_context": "ht",
}

BEST = (
    "low_latency",
    "normal",
    "NVLinkOneSided",
    "NVLinkTwoSided",
)  # of each family, the quickest in its class
WORDS = {
    "one": "one_sided",
    "two": "two_sided",
    "ll": "ll",
    "low": "ll",
    "generation": "ll",
    "ht": "ht",
    "context": "ht",
    "normal": "ht",
    "elastic": "ht",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Protocol:
    """A kernel and its family."""

    kernel: str
    family: str

    @property
    def traits(self) -> Family:
        """Of its family."""
        return FAMILIES[self.family]


def protocol_of(name: str) -> Protocol:
    """A kernel that was measured, a family, or a kernel whose name tells its family, as that family's mean.

    Raises SpecError where the name says nothing.
    """
    if name in KERNELS:
        return Protocol(kernel=name, family=KERNELS[name])
    if name in FAMILIES:
        return Protocol(kernel="", family=name)
    words = name.lower().replace("sided", "_").replace("link", "_").replace("buffer", "_").replace(" ", "_")
    families = {WORDS[word] for word in words.split("_") if word in WORDS}
    if len(families) != 1:
        raise SpecError(f"unknown all-to-all {name!r}", hint=closest(name, [*KERNELS, *FAMILIES], "use"))
    return Protocol(kernel="", family=families.pop())
