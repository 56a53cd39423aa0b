"""The report of a comparison."""

import math
from collections.abc import Mapping

from rackscale.plan.report.appendix import folded, operator_table
from rackscale.plan.report.curve import curve
from rackscale.plan.report.figures import dollars, interval, plain, plural, rate, seconds, times
from rackscale.plan.report.frame import Head, Section, page
from rackscale.plan.report.markup import Markup, element, joined
from rackscale.plan.report.memory import memory
from rackscale.plan.report.operators import operators
from rackscale.plan.report.rack import rack
from rackscale.plan.report.system import System, system_words
from rackscale.plan.report.tiles import Tile, tiles
from rackscale.plan.report.waterfall import waterfall
from rackscale.plan.report.words import STEPS, layout_words, speed
from rackscale.plan.types import Band, Comparison, PlannedDeployment
from rackscale.specs import Role

POWER = {"it": "IT"}
SAME = 0.02  # a ratio's distance from the waterfall's product, at which it is what the waterfall explains


def comparison_page(comparison: Comparison, systems: Mapping[str, System] | None = None) -> str:
    """One HTML document without anything outside of it. systems: by the names of the comparison's points;
    those that are given have their racks drawn."""
    known = systems or {}
    names = {name: system_words(known[name]) if name in known else name for name in comparison.points}
    first, *_, last = names.values()
    head = Head(
        kind="comparison",
        title=f"{last} over {first}, {comparison.model}",
        asked=_asked(comparison, first, last),
        answer=_answer(comparison),
        tiles=_tiles(comparison),
    )
    sections = [
        _waterfall(comparison, first, last),
        _curve(comparison, first),
        _side_by_side(comparison, names),
        *_racks(comparison, known),
        *_steps(comparison, names),
        *_memory(comparison, names, known),
        _appendix(comparison, names),
    ]
    return page(head, sections)


def _asked(comparison: Comparison, first: str, last: str) -> Markup:
    lengths = (
        f", {comparison.isl:,} tokens in and {comparison.osl:,} out, "
        f"at {plain(comparison.interactivity)} tokens/s per user: how much more than "
    )
    return element(
        "p", element("b", comparison.model), " on ", element("b", last), lengths, element("b", first), "?"
    )


def _answer(comparison: Comparison) -> Markup:
    ratio = comparison.ratio
    return joined(
        element("b", f"{times(ratio.per_chip.value)} per chip"),
        element("span", f" ({interval(ratio.per_chip, plain)})"),
        ", ",
        element("b", f"{times(ratio.per_mw.value)} per MW"),
        element("span", f" ({interval(ratio.per_mw, plain)})"),
        ", ",
        element("b", f"{times(ratio.per_usd.value)} per dollar"),
        element("span", f" ({interval(ratio.per_usd, plain)})"),
        f". Baseline: {comparison.baseline}.",
    )


def _tiles(comparison: Comparison) -> Markup:
    """The one that the waterfall explains is the main one."""
    ratio, (explained, _) = comparison.ratio, _explained(comparison)
    shown = {
        "per chip": ("Per chip", ratio.per_chip, []),
        "per MW": ("Per megawatt", ratio.per_mw, [f"{POWER.get(comparison.power, comparison.power)} power"]),
        "per dollar": ("Per dollar", ratio.per_usd, [f"{comparison.price} prices"]),
    }
    return tiles(
        *(
            Tile(
                name=name,
                value=band.value,
                form=times,
                band=band,
                limit=1.0,
                notes=notes,
                main=key == explained,
            )
            for key, (name, band, notes) in shown.items()
        )
    )


def _waterfall(comparison: Comparison, first: str, last: str) -> Section:
    name, total = _explained(comparison)
    product = math.prod(step.factor for step in comparison.waterfall)
    return Section(
        key="waterfall",
        title=f"Where the {times(total.value)} {name} comes from",
        reading=f"The factors multiply to {times(product)}. Each is its mean over all orders of the switches "
        "(Shapley), with its 90 % interval; the axis is logarithmic.",
        body=waterfall(comparison.waterfall, first, last, total),
        anchor="Waterfall",
        wide=True,
    )


def _explained(comparison: Comparison) -> tuple[str, Band]:
    """The ratio that the factors multiply to; where it is none of the three, the product with no interval."""
    ratio = comparison.ratio
    named = {"per MW": ratio.per_mw, "per chip": ratio.per_chip, "per dollar": ratio.per_usd}
    product = math.prod(step.factor for step in comparison.waterfall)
    name, band = min(named.items(), key=lambda item: abs(math.log(item[1].value / product)))
    if abs(band.value / product - 1) <= SAME:
        return name, band
    return "in all", Band(value=product, low=product, high=product)


def _curve(comparison: Comparison, first: str) -> Section:
    return Section(
        key="curve",
        anchor="Over interactivity",
        title="Over interactivity",
        reading=f"Each side at its best deployment for that speed, over {first}. "
        "Whiskers: 90 % intervals at the speed that was asked for.",
        body=curve(comparison.curve, comparison.ratio, comparison.interactivity),
    )


def _side_by_side(comparison: Comparison, names: Mapping[str, str]) -> Section:
    rows = [
        element("tr", element("th", title, scope="row"), *(element("td", cell) for cell in cells))
        for title, cells in _facts(list(comparison.points.values()))
    ]
    head = element("tr", element("td"), *(element("th", name, scope="col") for name in names.values()))
    table = element("table", element("thead", head), element("tbody", *rows), class_="facts")
    return Section(
        key="systems",
        anchor="Side by side",
        title="Side by side",
        reading=f"Baseline: {comparison.baseline}.",
        body=element("div", table, class_="scroll"),
    )


def _facts(shown: list[PlannedDeployment]) -> list[tuple[str, list[str]]]:
    points = [one.point for one in shown]
    return [
        ("Layout", [layout_words(one) for one in shown]),
        (
            "Tokens/s per chip",
            [
                f"{rate(point.tokens_per_s_per_chip.value)} ({interval(point.tokens_per_s_per_chip, rate)})"
                for point in points
            ],
        ),
        ("of them output", [rate(point.output_tokens_per_s_per_chip) for point in points]),
        ("Tokens/s per MW", [rate(point.tokens_per_s_per_mw) for point in points]),
        ("Price per M tokens", [dollars(point.usd_per_mtok) for point in points]),
        ("Tokens/s per user", [plain(speed(one)) for one in shown]),
        ("TPOT, p99", [f"{seconds(point.tpot_s.value)}, {seconds(point.tpot_p99_s)}" for point in points]),
        ("TTFT, p99", [f"{seconds(point.ttft_s.value)}, {seconds(point.ttft_p99_s)}" for point in points]),
        ("Chips", [plain(point.chips) for point in points]),
        ("Requests at once", [plain(round(point.concurrency)) for point in points]),
        ("Binding", [one.binding for one in shown]),
    ]


def _racks(comparison: Comparison, systems: Mapping[str, System]) -> list[Section]:
    return [
        Section(
            key=f"rack-{number}",
            title=system_words(systems[name]),
            reading=f"{plural(one.point.chips, 'chip')}, domains of {systems[name].domain_chips}.",
            body=rack(one.pools, systems[name]),
            anchor=None if number else "Racks",
        )
        for number, (name, one) in enumerate(comparison.points.items())
        if name in systems
    ]


def _steps(comparison: Comparison, names: Mapping[str, str]) -> list[Section]:
    """A mixed rank's step stands beside the other's decoding: both make answers."""
    answers = _steps_of(comparison, names, (Role.DECODE, Role.MIXED))
    return [*answers, *_steps_of(comparison, names, (Role.PREFILL,))]


def _steps_of(comparison: Comparison, names: Mapping[str, str], roles: tuple[Role, ...]) -> list[Section]:
    """One scale for all systems: bars next to each other are compared."""
    found = [
        (name, role, shown)
        for name, deployment in comparison.points.items()
        for role, shown in deployment.operators.items()
        if shown and role in roles
    ]
    longest = max((one.seconds for _, _, shown in found for one in shown), default=0.0)
    return [
        Section(
            key=f"time-{list(names).index(name)}-{role}",
            title=f"{STEPS[role]}, {names[name]}",
            reading=f"{seconds(sum(one.seconds for one in shown))} in all.",
            body=operators(shown, longest),
            anchor=None if number else STEPS[role],
            wide=len(found) == 1,
        )
        for number, (name, role, shown) in enumerate(found)
    ]


def _memory(comparison: Comparison, names: Mapping[str, str], systems: Mapping[str, System]) -> list[Section]:
    found = {
        (name, f"{names[name]}, {role} rank"): shares
        for name, deployment in comparison.points.items()
        for role, shares in deployment.memory.items()
        if shares
    }
    if not found:
        return []
    ranks = {rank: shares for (_, rank), shares in found.items()}
    capacity = {rank: systems[name].chip.hbm_bytes for name, rank in found if name in systems}
    return [
        Section(
            key="memory",
            anchor="Memory",
            title="Memory by rank",
            reading="Of each kind of rank.",
            body=memory(ranks, capacity),
            wide=True,
        )
    ]


def _appendix(comparison: Comparison, names: Mapping[str, str]) -> Section:
    steps = {
        f"{names[name]}: {STEPS[role]}": shown
        for name, deployment in comparison.points.items()
        for role, shown in deployment.operators.items()
    }
    return Section(
        key="appendix",
        anchor="To argue with",
        title="To argue with",
        reading=f"Power: {POWER.get(comparison.power, comparison.power)}. Prices: {comparison.price}.",
        body=folded("Every operator: time, formula, source", operator_table(steps)),
        wide=True,
    )
