"""Systems between two others, which nobody sells: each difference is taken from the one or from the other.

What a switch takes with it is disjoint from what the others take. So the order in which switches are turned
has no meaning for the system that comes of it, only for what each of them is said to add.
"""

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from enum import Enum, auto

from rackscale.plan.question import Question


class Switch(Enum):
    """FORMATS: of routed experts, and units to multiply them in. MATHS: rates of the wider formats, and what
    goes with a chip's generation: the share of its rates that kernels reach, and the cache's format. MEMORY:
    of the chip, and of its host. DOMAIN: its size and links, the network, and how far experts may be spread.
    ROLES: whether prompts have ranks of their own. SOFTWARE: the engine."""

    FORMATS = auto()
    MATHS = auto()
    MEMORY = auto()
    DOMAIN = auto()
    ROLES = auto()
    SOFTWARE = auto()


@dataclass(frozen=True, kw_only=True, slots=True)
class Switches:
    """names: of those that change something, in the order in which they are told."""

    first: Question
    last: Question
    names: Mapping[Switch, str]

    def question(self, number: int) -> Question:
        """With those switches turned whose bits, in the order of `names`, are in the number."""
        turned = {switch for bit, switch in enumerate(self.names) if number >> bit & 1}
        return hybrid(self.first, self.last, turned)


def switches(first: Question, last: Question) -> Switches:
    """weights: of both a format, not "auto"."""
    names = {
        Switch.FORMATS: f"weights and maths in {last.weights.upper()}",
        Switch.MATHS: "tensor cores, their kernels, cache format",
        Switch.MEMORY: "memory bandwidth and size",
        Switch.DOMAIN: _domain_words(first, last),
        Switch.ROLES: "disaggregation",
        Switch.SOFTWARE: "software",
    }
    start = hybrid(first, last, set())
    changed = {switch: name for switch, name in names.items() if hybrid(first, last, {switch}) != start}
    return Switches(first=first, last=last, names=changed)


def hybrid(first: Question, last: Question, turned: AbstractSet[Switch]) -> Question:
    """The first question, with what each turned switch takes from the last.

    Chips that may be used are the last's as soon as pools or the domain need more than a box.
    """

    def of(switch: Switch) -> Question:
        return last if switch in turned else first

    memory, domain = of(Switch.MEMORY).system, of(Switch.DOMAIN).system
    chip = replace(
        first.system.chip,
        generation=of(Switch.MATHS).system.chip.generation,
        tensor_flops=_rates(first, last, turned),
        hbm_bytes=memory.chip.hbm_bytes,
        hbm_bytes_per_s=memory.chip.hbm_bytes_per_s,
    )
    system = replace(
        first.system,
        name=f"{first.system.name} to {last.system.name}",
        chip=chip,
        domain_chips=domain.domain_chips,
        scale_up_bytes_per_s=domain.scale_up_bytes_per_s,
        scale_out_bytes_per_s=domain.scale_out_bytes_per_s,
        host_bytes_per_chip=memory.host_bytes_per_chip,
        host_link_bytes_per_s=memory.host_link_bytes_per_s,
    )
    return replace(
        first,
        system=system,
        weights=of(Switch.FORMATS).weights,
        max_ep=of(Switch.DOMAIN).max_ep,
        chips=(last if turned & {Switch.DOMAIN, Switch.ROLES} else first).chips,
        role=of(Switch.ROLES).role,
        engine=of(Switch.SOFTWARE).engine,
    )


def _rates(first: Question, last: Question, turned: AbstractSet[Switch]) -> dict[str, float]:
    """Where formats differ, FP4 units go with them, as many times faster than BF16 as on their chip."""
    rates = dict((last if Switch.MATHS in turned else first).system.chip.tensor_flops)
    if first.weights == last.weights:
        return rates
    own = (last if Switch.FORMATS in turned else first).system.chip.tensor_flops
    rates.pop("fp4", None)
    if "fp4" in own:
        rates["fp4"] = rates["bf16"] * own["fp4"] / own["bf16"]
    return rates


def _domain_words(first: Question, last: Question) -> str:
    if first.system.domain_chips == last.system.domain_chips:
        return "links"
    return f"domain of {last.system.domain_chips}: wide EP and its all-to-all"
