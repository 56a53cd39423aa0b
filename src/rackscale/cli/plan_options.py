"""Options that the planner's verbs share, spelled once."""

import math
from typing import TYPE_CHECKING, Annotated

import typer

from rackscale.core import SpecError

if TYPE_CHECKING:
    from rackscale.plan.types import Objective

MS_PER_S = 1000.0

ModelOption = Annotated[
    str, typer.Option(metavar="M", help="Of the catalog, a TOML file like it, or a config.json.")
]
SystemOption = Annotated[str, typer.Option(metavar="S", help="Of the catalog, or a TOML file like it.")]
IslOption = Annotated[int, typer.Option(metavar="N", help="Tokens of a prompt.")]
OslOption = Annotated[int, typer.Option(metavar="N", help="Tokens of an answer.")]
InteractivityOption = Annotated[
    float | None, typer.Option(metavar="X", help="Tokens/s that a user gets at least: 1 / median TPOT.")
]
TpotOption = Annotated[
    float | None, typer.Option("--tpot-ms", metavar="X", help="The same as milliseconds of a token.")
]
TtftOption = Annotated[
    float | None, typer.Option("--ttft-s", metavar="X", help="The median first token comes in so long.")
]
WeightsOption = Annotated[
    str, typer.Option(metavar="FORMAT", help="Of routed experts: nvfp4, int4, fp8, mxfp4, bf16, auto.")
]
RoleOption = Annotated[
    str, typer.Option(metavar="ROLE", help="Prompts and answers: mixed, disaggregated, auto.")
]
ObjectiveOption = Annotated[str, typer.Option(metavar="WHAT", help="Most tokens/s by chip, mw or usd.")]
PowerOption = Annotated[str, typer.Option(metavar="POWER", help="All-in, of it or utility.")]
PriceOption = Annotated[
    str, typer.Option(metavar="TIER", help="Of a chip-hour: hyperscaler, neocloud, rental.")
]
EngineOption = Annotated[
    str, typer.Option(metavar="ENGINE", help="As trtllm, sglang or vllm runs it. auto: their mean.")
]
MeanLengthOption = Annotated[
    float, typer.Option(metavar="X", help="Mean of lengths over isl and osl; InferenceX draws 0.9.")
]
SpeculativeOption = Annotated[
    bool, typer.Option("--speculative", help="The model's own draft layer guesses ahead.")
]
PrefixHitsOption = Annotated[
    float,
    typer.Option(metavar="X", help="Share of prompts' tokens whose cache comes from the host's memory."),
]


def speed_of(interactivity: float | None, tpot_ms: float | None) -> float | None:
    """Tokens per second and user, of the two options that say it. Raises SpecError for both, and for what is
    no time."""
    if tpot_ms is None:
        return interactivity
    if interactivity is not None:
        raise SpecError("--interactivity with --tpot-ms", hint="give one or the other")
    if not (math.isfinite(tpot_ms) and tpot_ms > 0):
        raise SpecError(f"--tpot-ms is {tpot_ms}", hint="give a number above 0")
    return MS_PER_S / tpot_ms


def objective_of(name: str) -> "Objective":
    """Raises SpecError for an unknown one."""
    from rackscale.plan.types import Objective  # noqa: PLC0415 (--help is fast)
    from rackscale.specs.catalog import closest  # noqa: PLC0415 (the same)

    if name not in tuple(Objective):
        raise SpecError(f"--objective {name} is not known", hint=closest(name, tuple(Objective), "give"))
    return Objective(name)
