"""`rackscale plan`: the best deployment of a model on chips at a level of service."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from rackscale.cli import plan_options as o
from rackscale.cli.options import JsonOption
from rackscale.cli.output import print_json
from rackscale.core import SpecError


def plan(
    *,
    model: o.ModelOption,
    system: o.SystemOption,
    isl: o.IslOption,
    osl: o.OslOption,
    interactivity: o.InteractivityOption = None,
    tpot_ms: o.TpotOption = None,
    ttft_s: o.TtftOption = None,
    chips: Annotated[
        int | None, typer.Option(metavar="N", help="At most. Default: one domain, or as many as are needed.")
    ] = None,
    weights: o.WeightsOption = "auto",
    role: o.RoleOption = "auto",
    redundant: Annotated[
        str, typer.Option(metavar="N", help="Further copies of experts in each group, or auto.")
    ] = "auto",
    router_trace: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Tokens by layer and expert: CSV or JSON.")
    ] = None,
    skew: Annotated[
        float | None, typer.Option(metavar="X", help="Zipf exponent of experts. Default: as fitted.")
    ] = None,
    objective: o.ObjectiveOption = "chip",
    power: o.PowerOption = "it",
    price: o.PriceOption = "hyperscaler",
    engine: o.EngineOption = "auto",
    mean_length: o.MeanLengthOption = 1.0,
    speculative: o.SpeculativeOption = False,
    prefix_hits: o.PrefixHitsOption = 0.0,
    explain: Annotated[
        bool, typer.Option("--explain", help="Print every operator's time, formula and source.")
    ] = False,
    out: Annotated[Path | None, typer.Option(metavar="FILE.toml", help="Write the deployment.")] = None,
    report: Annotated[Path | None, typer.Option(metavar="FILE.html", help="Write a page to look at.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Find the deployment that serves the most at a level of service, and say why.

    Every figure has the interval that holds the truth nine times of ten. TPOT and TTFT are of the median
    request; their 99th percentiles are those of requests that come at random.

    Example: rackscale plan --model kimi-k2-thinking --system gb200-nvl72 --isl 8192 --osl 1024 --tpot-ms 27
    """
    from rackscale.plan.model_source import model_of  # noqa: PLC0415 (--help is fast)
    from rackscale.plan.planner import plan as planned  # noqa: PLC0415 (the same)
    from rackscale.plan.point import point_of  # noqa: PLC0415 (the same)
    from rackscale.plan.question import Question  # noqa: PLC0415 (the same)
    from rackscale.plan.router_trace import skew_of  # noqa: PLC0415 (the same)
    from rackscale.specs.catalog import load_system  # noqa: PLC0415 (the same)

    known = model_of(model)
    if router_trace is not None and skew is not None:
        raise SpecError("--router-trace with --skew", hint="give one or the other")
    question = Question(
        model=known,
        system=load_system(system),
        isl=isl,
        osl=osl,
        interactivity=o.speed_of(interactivity, tpot_ms),
        ttft_s=ttft_s,
        chips=chips,
        weights=weights,
        role=role,
        redundant=_redundant(redundant),
        skew=skew if router_trace is None else skew_of(router_trace, known.spec),
        objective=o.objective_of(objective),
        power=power,
        price=price,
        engine=engine,
        mean_length=mean_length,
        speculative=speculative,
        prefix_hits=prefix_hits,
    )
    for option, path in (("--out", out), ("--report", report)):
        if path is not None and not path.parent.is_dir():
            raise SpecError(
                f"{path} cannot be written, {path.parent} is not there", hint=f"give another {option}"
            )
    result = planned(question)
    if out is not None:
        from rackscale.plan.deployment import write_deployment  # noqa: PLC0415 (where it is wanted)

        write_deployment(replace(result.best, model=model, system=system), out)
    if report is not None:
        from rackscale.plan.report import plan_page  # noqa: PLC0415 (where it is wanted)

        _write(report, plan_page(result, question.system))
    if as_json:
        print_json(
            {
                "model": result.model,
                "system": result.system,
                "isl": result.isl,
                "osl": result.osl,
                "best": point_of(result.best),
                "pareto": [point_of(one) for one in result.pareto],
                "alternatives": [
                    {"why_not": other.why_not, "point": point_of(other.deployment)}
                    for other in result.alternatives
                ],
                "searched": result.searched,
                "seconds": result.seconds,
            }
        )
        return
    from rackscale.cli.plan_text import print_plan  # noqa: PLC0415 (where it is wanted)

    print_plan(result, question, explain=explain)


def _redundant(text: str) -> int | None:
    if text == "auto":
        return None
    try:
        return int(text)
    except ValueError:
        raise SpecError(f"--redundant {text}", hint="give a whole number, or auto") from None


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise SpecError(
            f"{path} cannot be written ({error.strerror})", hint="give another --report"
        ) from None
