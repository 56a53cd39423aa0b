"""Comparisons on a terminal: the answer first, then its factors, then the ratio over interactivity."""

import math
from collections.abc import Mapping, Sequence

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from rich.text import Text

from rackscale.plan.question import Question
from rackscale.plan.report.figures import dollars, interval, plain, rate, seconds, times
from rackscale.plan.report.words import layout_words
from rackscale.plan.types import Comparison, CurvePoint, Objective, WaterfallStep
from rackscale.specs.catalog import SystemSpec

PIPE_WIDTH = 160  # columns where stdout is no terminal
BAR = 40  # characters of the longest bar
OF = {Objective.CHIP: "per chip", Objective.MW: "per MW", Objective.USD: "per dollar"}
POWERS = {"it": "IT power", "utility": "utility power"}


def print_comparisons(
    found: Mapping[str, Comparison], question: Question, systems: Sequence[SystemSpec]
) -> None:
    """By baseline. systems: in the order in which they were given."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=PIPE_WIDTH)
    lengths = f"{question.isl:,} tokens in and {question.osl:,} out"
    drafts = "with its draft layer" if question.speculative else "no speculation"
    console.print(
        Text(
            f"{question.model.title}, {lengths}, {plain(question.interactivity or 0)} tokens/s per user, "
            f"{drafts}, input and output tokens counted",
            style="dim",
        )
    )
    titles = {system.name: system.title for system in systems}
    for comparison in found.values():
        console.print()
        console.print(_answer(comparison, systems[-1].title))
        console.print(_points(comparison, titles))
        console.print(_factors(comparison, question.objective))
        console.print(_curve(comparison.curve, comparison.interactivity))
    console.print(
        Text(
            "Ratios: 90 % intervals, of parameters (both sides drawn together) and of measured curves about "
            "predicted ones. Factors: of parameters. Both sides run the same engine of the same date, so "
            "software is no factor. Power and prices are taken as known.",
            style="dim",
        )
    )


def _answer(comparison: Comparison, last: str) -> Text:
    ratio = comparison.ratio
    parts: list[str | tuple[str, str]] = [f"{last} gives "]
    for band, words in (
        (ratio.per_chip, "per chip"),
        (ratio.per_mw, f"per MW ({POWERS.get(comparison.power, comparison.power)})"),
        (ratio.per_usd, f"per dollar ({comparison.price})"),
    ):
        parts += [(times(band.value), "bold green"), f" {words} [{interval(band, plain)}], "]
    return Text.assemble(*parts, "over ", (comparison.baseline, "bold"), ".")


def _points(comparison: Comparison, titles: Mapping[str, str]) -> Table:
    table = Table(box=SIMPLE, show_edge=False, pad_edge=False)
    for heading in (
        "",
        "tokens/s per chip",
        "",
        "per MW",
        "$/M tokens",
        "TPOT",
        "TTFT",
        "layout",
        "bound by",
    ):
        table.add_column(heading, justify="left" if heading in {"", "layout", "bound by"} else "right")
    for name, deployment in comparison.points.items():
        point = deployment.point
        table.add_row(
            titles[name],
            rate(point.tokens_per_s_per_chip.value),
            interval(point.tokens_per_s_per_chip, rate),
            rate(point.tokens_per_s_per_mw),
            dollars(point.usd_per_mtok),
            seconds(point.tpot_s.value),
            seconds(point.ttft_s.value),
            layout_words(deployment),
            deployment.binding,
        )
    return table


def _factors(comparison: Comparison, objective: Objective) -> Table:
    table = Table(box=SIMPLE, show_edge=False, pad_edge=False)
    for heading in (f"where the ratio {OF[objective]} comes from", "factor", "90 %", "so far", ""):
        numeric = heading in {"factor", "so far"}
        table.add_column(heading, justify="right" if numeric else "left")
    longest = max(abs(math.log(step.factor)) for step in comparison.waterfall)
    for step in comparison.waterfall:
        table.add_row(
            step.step,
            times(step.factor),
            f"{plain(step.low)} to {plain(step.high)}",
            times(step.cumulative),
            _bar(step, longest),
        )
    return table


def _bar(step: WaterfallStep, longest: float) -> Text:
    length = round(BAR * abs(math.log(step.factor)) / longest) if longest else 0
    return Text("━" * length, style="green" if step.factor >= 1 else "red")


def _curve(curve: Sequence[CurvePoint], asked: float) -> Table:
    """A bar from 1 on, on a logarithmic scale."""
    table = Table(box=SIMPLE, show_edge=False, pad_edge=False)
    for heading in ("tokens/s per user", "per chip", "per MW", "per dollar", ""):
        table.add_column(heading, justify="right" if heading else "left")
    longest = max((abs(math.log(point.per_chip)) for point in curve), default=0.0)
    for point in curve:
        length = round(BAR * abs(math.log(point.per_chip)) / longest) if longest else 0
        ratios = (point.per_chip, point.per_mw, point.per_usd)
        chosen = "bold" if math.isclose(point.interactivity, asked) else ""
        table.add_row(
            plain(point.interactivity),
            *(times(ratio) for ratio in ratios),
            Text("━" * length, style="green" if point.per_chip >= 1 else "red"),
            style=chosen,
        )
    return table
