"""`rackscale compare`: a system over another at the same speed for users, and where the ratio comes from."""

from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rackscale.cli import plan_options as o
from rackscale.cli.options import JsonOption
from rackscale.cli.output import print_json, progress
from rackscale.core import SpecError

if TYPE_CHECKING:
    from rackscale.plan.types import Band, Comparison
    from rackscale.specs.catalog import SystemSpec


class Baseline(StrEnum):
    """What the first system may do."""

    BOX = "box"
    DISAGGREGATED = "disaggregated"
    BOTH = "both"


def compare(
    *,
    model: o.ModelOption,
    systems: Annotated[str, typer.Option(metavar="A,B[,...]", help="The last is held against the first.")],
    isl: o.IslOption,
    osl: o.OslOption,
    interactivity: o.InteractivityOption = None,
    tpot_ms: o.TpotOption = None,
    ttft_s: o.TtftOption = None,
    baseline: Annotated[
        Baseline,
        typer.Option(
            help="The first system as one box, or disaggregated over as many chips as the last has."
        ),
    ] = Baseline.BOTH,
    objective: Annotated[
        str, typer.Option(metavar="WHAT", help="Factors are of the ratio by chip, mw or usd.")
    ] = "mw",
    power: o.PowerOption = "it",
    price: o.PriceOption = "hyperscaler",
    chips: Annotated[
        int | None, typer.Option(metavar="N", help="At most, of the last system. Default: one domain.")
    ] = None,
    weights: Annotated[
        str, typer.Option(metavar="FORMAT", help="Of routed experts on every system. auto: each one's best.")
    ] = "auto",
    engine: o.EngineOption = "auto",
    mean_length: o.MeanLengthOption = 1.0,
    speculative: o.SpeculativeOption = False,
    report: Annotated[
        Path | None,
        typer.Option(metavar="FILE.html", help="Write a page; a second baseline's beside it."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Hold a system against another, per chip, per megawatt and per dollar, and say where ratios come from.

    Both sides give users the same speed. A ratio is nothing without its baseline, so there are two. Factors
    multiply to the ratio; each is its mean over all orders in which the differences can be turned.

    Example: rackscale compare --model kimi-k2-thinking --systems hgx-h200,gb200-nvl72 --isl 8192 --osl 1024
    --interactivity 36.3
    """
    from rackscale.plan.compare import BASELINES, compare_with  # noqa: PLC0415 (--help is fast)
    from rackscale.plan.model_source import model_of  # noqa: PLC0415 (the same)
    from rackscale.plan.question import Question  # noqa: PLC0415 (the same)
    from rackscale.specs.catalog import load_system  # noqa: PLC0415 (the same)

    known = [load_system(name.strip()) for name in systems.split(",") if name.strip()]
    if not known:
        raise SpecError("--systems names none", hint="give two, for example hgx-h200,gb200-nvl72")
    question = Question(
        model=model_of(model),
        system=known[-1],
        isl=isl,
        osl=osl,
        interactivity=o.speed_of(interactivity, tpot_ms),
        ttft_s=ttft_s,
        chips=chips,
        weights=weights,
        objective=o.objective_of(objective),
        power=power,
        price=price,
        engine=engine,
        mean_length=mean_length,
        speculative=speculative,
    )
    wanted = BASELINES if baseline is Baseline.BOTH else (baseline.value,)
    with progress() as bar:
        bar.add_task("planning each combination of differences", total=None)
        found = compare_with(question, known, wanted)
    if report is not None:
        _report(report, found, known)
    if as_json:
        first, *_ = found.values()
        print_json({**_json(first), "baselines": {name: _json(one) for name, one in found.items()}})
        return
    from rackscale.cli.compare_text import print_comparisons  # noqa: PLC0415 (where it is wanted)

    print_comparisons(found, question, known)


def _report(path: Path, found: Mapping[str, "Comparison"], systems: list["SystemSpec"]) -> None:
    """The first baseline's page at the path, others' beside it."""
    from rackscale.plan.report import comparison_page  # noqa: PLC0415 (where it is wanted)

    for number, (name, comparison) in enumerate(found.items()):
        own = path.with_stem(f"{path.stem}-{name}") if number else path
        page = comparison_page(comparison, {system.name: system for system in systems})
        try:
            own.write_text(page, encoding="utf-8")
        except OSError as error:
            raise SpecError(
                f"{own} cannot be written ({error.strerror})", hint="give another --report"
            ) from None


def _json(comparison: "Comparison") -> dict[str, Any]:
    from rackscale.plan.point import point_of  # noqa: PLC0415 (--help is fast)

    ratio = comparison.ratio
    bands = {"per_chip": ratio.per_chip, "per_mw": ratio.per_mw, "per_usd": ratio.per_usd}
    return {
        "model": comparison.model,
        "isl": comparison.isl,
        "osl": comparison.osl,
        "interactivity": comparison.interactivity,
        "baseline": comparison.baseline,
        "power": comparison.power,
        "price": comparison.price,
        "points": {name: point_of(deployment) for name, deployment in comparison.points.items()},
        "ratio": {
            **{name: band.value for name, band in bands.items()},
            "interval90": {name: _ends(band) for name, band in bands.items()},
        },
        "waterfall": [
            {
                "step": step.step,
                "factor": step.factor,
                "cumulative": step.cumulative,
                "interval90": [step.low, step.high],
            }
            for step in comparison.waterfall
        ],
        "curve": [
            {
                "interactivity": point.interactivity,
                "per_chip": point.per_chip,
                "per_mw": point.per_mw,
                "per_usd": point.per_usd,
            }
            for point in comparison.curve
        ],
    }


def _ends(band: "Band") -> list[float]:
    return [band.low, band.high]
