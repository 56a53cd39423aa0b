"""What a plan is asked for: a model, chips, lengths, and a level of service."""

import math
from dataclasses import dataclass, fields

from rackscale.core import SpecError
from rackscale.cost import Parameters
from rackscale.cost.expert_load import MAX_SKEW
from rackscale.cost.formats import FORMATS
from rackscale.cost.parameters import moved_by
from rackscale.cost.priors import ENGINES
from rackscale.plan.types import Objective
from rackscale.specs.catalog import CatalogModel, SystemSpec, closest

ROLES = ("auto", "mixed", "disaggregated")
ENGINE_NAMES = ("auto", *ENGINES, "vllm")
WIDEST_EP = 576
INFERENCEX_CV = 0.2 / 12**0.5 / 0.9  # of lengths drawn evenly from 80 to 100 % of the nominal one
LEAST_SKEW = 1e-9  # its logarithm is kept
_POSITIVE = ("isl", "osl", "interactivity", "ttft_s", "chips", "max_ep", "mean_length")
_AMD = "cdna"
# What a model published in a format can be had in besides, as vendors convert it. fp4: NVFP4, or AMD's MXFP4.
_DERIVED = {"int4": ("fp4",), "fp8": ("fp4",), "bf16": ("fp8", "fp4"), "mxfp4": (), "nvfp4": ()}


@dataclass(frozen=True, kw_only=True, slots=True)
class Question:
    """interactivity: tokens per second that a user must get at least, 1 / TPOT of the median request. ttft_s:
    that the median request may wait for its first token. chips: that may be used; None: one domain, or as
    many whole domains as the model needs. weights: of routed experts, "auto" for the best that the model can
    be had in. redundant: further copies of experts in a group, filled up until ranks divide the slots; None
    for the best number. skew: Zipf exponent of experts' popularity; None: as fitted. engine: "auto" for the
    mean of engines. max_ep: ranks that experts may be spread over. mean_length: mean of a request's tokens
    over isl and osl, for benchmarks that draw them (InferenceX: 0.9). speculative: whether the model's own
    draft layer guesses ahead. prefix_hits: share of prompts' tokens whose cache is in the host's memory.
    length_cv: standard deviation of prompts' lengths over their mean, which the
    99th percentile of the wait for a first token grows with."""

    model: CatalogModel
    system: SystemSpec
    isl: int
    osl: int
    interactivity: float | None = None
    ttft_s: float | None = None
    chips: int | None = None
    weights: str = "auto"
    role: str = "auto"
    redundant: int | None = None
    skew: float | None = None
    objective: Objective = Objective.CHIP
    power: str = "it"
    price: str = "hyperscaler"
    engine: str = "auto"
    max_ep: int | None = None
    mean_length: float = 1.0
    speculative: bool = False
    prefix_hits: float = 0.0
    length_cv: float = INFERENCEX_CV

    def check(self) -> None:
        """Raises SpecError where a value makes no sense, or names something that is not there."""
        names = {field.name for field in fields(self)}
        for name in _POSITIVE:
            assert name in names
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value > 0):
                raise SpecError(f"{name} is {value}", hint="give a number above 0")
        if self.isl + self.osl > self.model.context:
            raise SpecError(
                f"isl {self.isl} and osl {self.osl} are beyond the context of {self.model.name}",
                hint=f"give at most {self.model.context} tokens together",
            )
        if not 0 <= self.prefix_hits < 1:
            raise SpecError(
                f"prefix_hits is {self.prefix_hits}", hint="give a share of prompts' tokens below 1"
            )
        if self.redundant is not None and self.redundant < 0:
            raise SpecError(f"redundant is {self.redundant}", hint="give 0 or more, or auto")
        if self.skew is not None and not 0 <= self.skew <= MAX_SKEW:
            raise SpecError(f"skew is {self.skew}", hint=f"give a Zipf exponent from 0 to {MAX_SKEW:g}")
        for what, value, options in (
            ("role", self.role, ROLES),
            ("engine", self.engine, ENGINE_NAMES),
            ("weights", self.weights, ("auto", *FORMATS)),
            ("power", self.power, tuple(self.system.power_w)),
            ("price", self.price, tuple(self.system.usd_per_chip_hour)),
        ):
            if value not in options:
                where = f" of {self.system.name}" if what in {"power", "price"} else ""
                raise SpecError(f"{what} {value}{where} is not known", hint=closest(value, options, "give"))
        self.formats()

    def formats(self) -> tuple[str, ...]:
        """Of routed experts, that are looked at. Raises SpecError for one that the chip cannot run."""
        chip = self.system.chip
        four_bits = "mxfp4" if chip.generation.startswith(_AMD) else "nvfp4"
        if self.weights == "nvfp4" and (four_bits != "nvfp4" or "fp4" not in chip.tensor_flops):
            raise SpecError(f"{self.system.name} has no units for nvfp4", hint=f"give {self.model.weights}")
        if self.weights != "auto":
            return (self.weights,)
        further = [name for name in _DERIVED[self.model.weights] if name in chip.tensor_flops]
        return (self.model.weights, *(four_bits if name == "fp4" else name for name in further))

    def engine_number(self) -> int:
        """As the fit counts engines; -1 for the mean."""
        return ENGINES.index(self.engine) if self.engine in ENGINES else -1

    def with_skew(self, parameters: Parameters) -> Parameters:
        """The parameters, with the skew that is asked for."""
        if self.skew is None:
            return parameters
        moved = parameters.moved.copy()
        moved[:, parameters.names.index("routing_skew")] = moved_by(
            "routing_skew", max(self.skew, LEAST_SKEW)
        )
        return Parameters(names=parameters.names, moved=moved)
