"""What a sweep may vary, by its path: a field of the system, of the model, or a length.

Everything else stays as it was, prices and power too: a system of another domain is one that nobody sells.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from rackscale.core import SpecError
from rackscale.plan.question import Question
from rackscale.specs import MoeSpec
from rackscale.specs.catalog import closest, load_model, load_system

Set = Callable[[Question, float], Question]


@dataclass(frozen=True, kw_only=True, slots=True)
class Axis:
    """path: as `--vary` names it. what: in words, with its unit. number, name: how it is set; a name is of
    the catalog. whole: whether values are whole numbers. limits: of values. unit: that large values are
    written with, after a decimal prefix."""

    path: str
    what: str
    number: Set | None = None
    name: Callable[[Question, str], Question] | None = None
    whole: bool = True
    limits: tuple[float, float] = (1.0, math.inf)
    unit: str = ""

    @property
    def names(self) -> bool:
        return self.name is not None

    def legal(self, value: float) -> float:
        """The value, a whole number where it must be one. Raises SpecError where it makes no sense."""
        value = float(round(value)) if self.whole else value
        low, high = self.limits
        if not low <= value <= high:
            bounds = f"at least {low:g}" if math.isinf(high) else f"from {low:g} to {high:g}"
            raise SpecError(f"{self.path} is {value:g}", hint=f"give {self.what}, {bounds}")
        return value

    def at(self, question: Question, value: float | str) -> Question:
        """The question with that value. Raises SpecError where the model has no such part, or the catalog
        no such name."""
        if self.name is not None:
            return self.name(question, str(value))
        assert self.number is not None
        return self.number(question, float(value))


def axis_of(path: str) -> Axis:
    """Raises SpecError for a path that is not one of `AXES`, with the one most like it."""
    if path not in AXES:
        raise SpecError(f"--vary knows no {path}", hint=closest(path, AXES, "give"))
    return AXES[path]


def _system(field: str) -> Set:
    def set_system(question: Question, value: float) -> Question:
        changed: dict[str, Any] = {field: value}
        return replace(question, system=replace(question.system, **changed))

    return set_system


def _chip(field: str) -> Set:
    def set_chip(question: Question, value: float) -> Question:
        changed: dict[str, Any] = {field: value}
        chip = replace(question.system.chip, **changed)
        return replace(question, system=replace(question.system, chip=chip))

    return set_chip


def _domain(question: Question, value: float) -> Question:
    """One domain of that size: the chips that may be used are the domain's, unless the question says."""
    return replace(question, system=replace(question.system, domain_chips=int(value)))


def _moe(question: Question) -> MoeSpec:
    moe = question.model.spec.moe
    if moe is None:
        raise SpecError(f"{question.model.name} has no experts", hint="vary a model that has, or its layers")
    return moe


def _with_moe(question: Question, moe: MoeSpec) -> Question:
    if not 1 <= moe.router.top_k <= moe.router.num_experts:
        raise SpecError(
            f"{moe.router.top_k} of {moe.router.num_experts} experts cannot be chosen",
            hint="give more experts, or a smaller top_k",
        )
    spec = replace(question.model.spec, moe=moe)
    return replace(question, model=replace(question.model, spec=spec))


def _experts(question: Question, value: float) -> Question:
    moe = _moe(question)
    return _with_moe(question, replace(moe, router=replace(moe.router, num_experts=int(value))))


def _top_k(question: Question, value: float) -> Question:
    moe = _moe(question)
    return _with_moe(question, replace(moe, router=replace(moe.router, top_k=int(value))))


def _expert_width(question: Question, value: float) -> Question:
    return _with_moe(question, replace(_moe(question), width=int(value)))


def _granularity(question: Question, value: float) -> Question:
    """Each expert cut into so many, of which as many more are active: parameters, all and active, stay (Dai
    et al. 2024, DeepSeekMoE, arXiv 2401.06066). Below 1, experts are joined."""
    moe = _moe(question)
    router = moe.router
    sizes = router.num_experts * value, router.top_k * value, moe.width / value
    if any(abs(size - round(size)) > 1e-6 or size < 1 for size in sizes):
        raise SpecError(
            f"model.granularity {value:g} leaves {sizes[0]:g} experts, top {sizes[1]:g}, width {sizes[2]:g}",
            hint="give a power of two that leaves whole numbers",
        )
    experts, top_k, width = (round(size) for size in sizes)
    return _with_moe(
        question, replace(moe, width=width, router=replace(router, num_experts=experts, top_k=top_k))
    )


def _sparsity(question: Question, value: float) -> Question:
    """So many experts for each that is active, and as many parameters in all: width makes up for it."""
    moe = _moe(question)
    router = moe.router
    experts = round(router.top_k * value)
    width = max(round(moe.width * router.num_experts / experts), 1)
    return _with_moe(question, replace(moe, width=width, router=replace(router, num_experts=experts)))


def _layers(question: Question, value: float) -> Question:
    """Dense layers first, as the model has them, then as many of the others, in their order."""
    layers = question.model.spec.layers
    number = int(value)
    dense = [layer for layer in layers if not layer.moe]
    moe = [layer for layer in layers if layer.moe]
    kept = dense[:number] if moe else []
    rest = moe or dense
    chosen = (*kept, *(rest[place % len(rest)] for place in range(number - len(kept))))
    spec = replace(question.model.spec, layers=chosen)
    return replace(question, model=replace(question.model, spec=spec))


def _context(question: Question, value: float) -> Question:
    """Input and output together, in the proportion of the question."""
    isl = max(round(value * question.isl / (question.isl + question.osl)), 1)
    return replace(question, isl=isl, osl=max(int(value) - isl, 1))


AXES: Mapping[str, Axis] = {
    axis.path: axis
    for axis in (
        Axis(
            path="system", what="names of systems", name=lambda q, name: replace(q, system=load_system(name))
        ),
        Axis(path="system.domain", what="chips in a domain", number=_domain, limits=(1, 4096)),
        Axis(
            path="system.hbm_bytes",
            what="bytes of a chip's memory",
            number=_chip("hbm_bytes"),
            limits=(1e9, 1e14),
            unit="B",
        ),
        Axis(
            path="system.hbm_bandwidth",
            what="bytes per second of a chip's memory",
            number=_chip("hbm_bytes_per_s"),
            limits=(1e10, 1e16),
            unit="B/s",
        ),
        Axis(
            path="system.link",
            what="bytes per second of a chip inside a domain, one direction",
            number=_system("scale_up_bytes_per_s"),
            limits=(1e8, 1e15),
            unit="B/s",
        ),
        Axis(
            path="system.network",
            what="bytes per second of a chip out of a domain, one direction",
            number=_system("scale_out_bytes_per_s"),
            limits=(1e8, 1e15),
            unit="B/s",
        ),
        Axis(path="model", what="names of models", name=lambda q, name: replace(q, model=load_model(name))),
        Axis(path="model.experts", what="routed experts of a layer", number=_experts, limits=(1, 65536)),
        Axis(path="model.top_k", what="experts of a token", number=_top_k, limits=(1, 1024)),
        Axis(
            path="model.expert_width",
            what="elements of an expert's width",
            number=_expert_width,
            limits=(1, 1e6),
        ),
        Axis(
            path="model.granularity",
            what="parts that each expert is cut into",
            number=_granularity,
            whole=False,
            limits=(1 / 64, 64),
        ),
        Axis(
            path="model.sparsity",
            what="experts for each that is active, parameters staying",
            number=_sparsity,
            limits=(1, 65536),
        ),
        Axis(path="model.layers", what="layers", number=_layers, limits=(1, 1024)),
        Axis(path="isl", what="tokens in", number=lambda q, value: replace(q, isl=int(value))),
        Axis(path="osl", what="tokens out", number=lambda q, value: replace(q, osl=int(value))),
        Axis(path="context", what="tokens in and out", number=_context, limits=(2, math.inf)),
    )
}
