"""`rackscale sweep`: what is reached as parts of the system, the model or the requests grow."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rackscale.cli import plan_options as o
from rackscale.cli.options import JsonOption
from rackscale.cli.output import print_json, progress
from rackscale.core import SpecError

if TYPE_CHECKING:
    from rackscale.plan.sweep import Answer, Fit, Row, Sweep


def sweep(
    *,
    model: o.ModelOption,
    system: o.SystemOption,
    isl: o.IslOption,
    osl: o.OslOption,
    vary: Annotated[
        list[str],
        typer.Option(
            metavar="PATH=RANGE",
            help="a..b doubles, a..b/n takes n values, a,b,c those. PATH: system, system.domain, "
            "system.hbm_bytes, system.hbm_bandwidth, system.link, system.network, model, model.experts, "
            "model.top_k, model.expert_width, model.granularity, model.sparsity, model.layers, isl, osl, "
            "context. Once, or twice for all pairs.",
        ),
    ],
    interactivity: o.InteractivityOption = None,
    tpot_ms: o.TpotOption = None,
    ttft_s: o.TtftOption = None,
    chips: Annotated[
        int | None,
        typer.Option(metavar="N", help="At most. Default: one domain; where it varies, the largest one."),
    ] = None,
    weights: o.WeightsOption = "auto",
    role: o.RoleOption = "auto",
    objective: o.ObjectiveOption = "chip",
    power: o.PowerOption = "it",
    price: o.PriceOption = "hyperscaler",
    engine: o.EngineOption = "auto",
    report: Annotated[Path | None, typer.Option(metavar="FILE.html", help="Write a page to look at.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Plan at every value of one thing, or of two, and fit a power law to each regime between knees.

    Model paths answer which model shape suits the rack, system paths which rack suits the model.

    Example: rackscale sweep --model kimi-k2-thinking --system gb200-nvl72 --isl 8192 --osl 1024
    --interactivity 50 --vary system.domain=8..288
    """
    from rackscale.plan.model_source import model_of  # noqa: PLC0415 (--help is fast)
    from rackscale.plan.question import Question  # noqa: PLC0415 (the same)
    from rackscale.plan.sweep import read_range  # noqa: PLC0415 (the same)
    from rackscale.plan.sweep import sweep as swept  # noqa: PLC0415 (the same)
    from rackscale.specs.catalog import load_system  # noqa: PLC0415 (the same)

    question = Question(
        model=model_of(model),
        system=load_system(system),
        isl=isl,
        osl=osl,
        interactivity=o.speed_of(interactivity, tpot_ms),
        ttft_s=ttft_s,
        chips=chips,
        weights=weights,
        role=role,
        objective=o.objective_of(objective),
        power=power,
        price=price,
        engine=engine,
    )
    ranges = [read_range(text) for text in vary]
    with progress() as bar:
        total = 1
        for _, values in ranges:
            total *= len(values)
        task = bar.add_task("planning", total=total)
        result = swept(question, ranges, on_row=lambda _: bar.advance(task))
    if report is not None:
        _report(report, result)
    if as_json:
        print_json(_json(result))
        return
    from rackscale.cli.sweep_text import print_sweep  # noqa: PLC0415 (where it is wanted)

    print_sweep(result, question)


def _report(path: Path, result: "Sweep") -> None:
    from rackscale.plan.report.sweep_page import sweep_page  # noqa: PLC0415 (where it is wanted)

    try:
        path.write_text(sweep_page(result), encoding="utf-8")
    except OSError as error:
        raise SpecError(
            f"{path} cannot be written ({error.strerror})", hint="give another --report"
        ) from None


def _json(result: "Sweep") -> dict[str, Any]:
    return {
        "model": result.model,
        "system": result.system,
        "isl": result.isl,
        "osl": result.osl,
        "interactivity": result.interactivity,
        "unit": result.unit,
        "rows": [_row(row) for row in result.rows],
        "fits": [_fit(fit) for fit in result.fits],
        "answer": None if result.answer is None else _answer(result.answer),
    }


def _row(row: "Row") -> dict[str, Any]:
    from rackscale.plan.point import point_of  # noqa: PLC0415 (--help is fast)

    point = None if row.deployment is None else point_of(row.deployment)
    return {**row.values, "point": point, "reached": row.reached, "why": row.why or None}


def _fit(fit: "Fit") -> dict[str, Any]:
    """A regime is named by its ends; neighbours share a knee."""
    regime = fit.regime
    return {
        "over": fit.over,
        "at": dict(fit.at),
        "regime": f"{regime.first:g} to {regime.last:g}",
        "first": regime.first,
        "last": regime.last,
        "exponent": regime.exponent,
        "interval90": [regime.low, regime.high],
        "binding": fit.binding,
    }


def _answer(answer: "Answer") -> dict[str, Any]:
    return {
        "question": answer.question,
        "best": dict(answer.best.values),
        "reached": answer.best.reached,
        "gain": answer.gain,
        "least_nearly_as_good": None if answer.least is None else dict(answer.least.values),
    }
