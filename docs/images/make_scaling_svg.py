"""Draw the charts of docs/scaling-laws.md, and write its tables between their marks.

python docs/images/make_scaling_svg.py [STUDY ...]; all of them take some minutes on one core.
"""

import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path

from line_chart import Curve, line_chart

from rackscale.cli.sweep_text import value_words
from rackscale.plan.compare import BASELINES, compare_with
from rackscale.plan.question import Question
from rackscale.plan.report.figures import plain, rate
from rackscale.plan.report.words import layout_words
from rackscale.plan.sweep import Sweep, read_range
from rackscale.plan.types import Band, Comparison, Objective
from rackscale.specs.catalog import load_model, load_system

HERE = Path(__file__).parent
PAGE = HERE.parent / "scaling-laws.md"
LEVELS = (36.3, 75.0)  # tokens per second and user: the middle of the curve, and the fast end
MIDDLE = LEVELS[0]
POWERS = {"it": "IT", "utility": "utility"}
PRICES = ("hyperscaler", "neocloud", "rental")
# What InferenceX measured of DeepSeek-R1, 8K/1K, no MTP, at 36.3 tokens/s per user, tokens/s per chip.
LADDER = (
    ("hgx-h200", "fp8", "mixed", 8, 781),
    ("hgx-h200", "fp8", "disaggregated", 72, 944),
    ("hgx-b200", "fp8", "mixed", 8, 1893),
    ("hgx-b200", "nvfp4", "mixed", 8, 4825),
    ("hgx-b200", "fp8", "disaggregated", 72, 2464),
    ("gb200-nvl72", "fp8", "disaggregated", 72, 7117),
    ("gb200-nvl72", "nvfp4", "disaggregated", 72, 9382),
)
# GB200 over B200 by tokens/s per user, both disaggregated: DeepSeek-R1 in FP4, 1K/1K, MTP, InferenceX,
# 2026-05-23.
BOXES = {25: 1.15, 45: 1.15, 75: 1.35, 100: 2.2, 125: 4.4, 175: 1.9, 225: 1.1}
RACKS = "hgx-h100,hgx-h200,hgx-b200,hgx-b300,gb200-nvl72,gb300-nvl72,vr200-nvl72,mi355x"


def question(model: str = "kimi-k2-thinking", system: str = "gb200-nvl72", **changes: object) -> Question:
    """8K in, 1K out, on as many chips as a rack has."""
    given = {"isl": 8192, "osl": 1024, "interactivity": MIDDLE, "power": "it", "chips": 72} | changes
    return Question(model=load_model(model), system=load_system(system), **given)  # type: ignore[arg-type]  # by name


def swept(asked: Question, *vary: str) -> Sweep:
    """What `rackscale sweep` says."""
    return import_module("rackscale.plan.sweep").sweep(asked, [read_range(text) for text in vary])


def over(
    name: str, title: str, x_title: str, vary: str, levels: Sequence[float] = LEVELS, **changes: object
) -> None:
    """A chart and a table of regimes: throughput over one path, a curve for each speed of users."""
    curves, lines = (
        [],
        [
            "| tokens/s per user | from | to | exponent | 90 % | mostly bound by |",
            "|---|---|---|---|---|---|",
        ],
    )
    for level in levels:
        found = swept(question(**{**changes, "interactivity": level}), vary)
        path = vary.partition("=")[0]
        points = [(float(row.values[path]), row.reached) for row in found.rows if row.reached]
        knees = [fit.regime.first for fit in found.fits[1:]]
        curves.append(Curve(label=f"{level:g} tokens/s", points=points, knees=knees))
        lines += [
            f"| {level:g} | {value_words(path, fit.regime.first)} | {value_words(path, fit.regime.last)} "
            f"| {fit.regime.exponent:+.2f} "
            f"| {fit.regime.low:+.2f} to {fit.regime.high:+.2f} | {fit.binding} |"
            for fit in found.fits
        ]
    (HERE / f"scaling-{name}.svg").write_text(line_chart(title, x_title, found.unit, curves))
    write(name, lines)


def claim() -> None:
    """The ratio, its factors, and both over interactivity."""
    systems = [load_system(name) for name in ("hgx-h200", "gb200-nvl72")]
    asked = question(chips=None, mean_length=0.9, objective=Objective.MW)
    found = compare_with(asked, systems, BASELINES)
    lines = ["| GB200 NVL72 over | " + " | ".join(_kinds()) + " |", "|---" * (1 + len(_kinds())) + "|"]
    lines += [f"| {one.baseline} | " + " | ".join(_ratios(one)) + " |" for one in found.values()]
    write("claim", lines)
    names = [step.step for step in found["box"].waterfall]
    lines = ["| factor of the ratio per MW | one box | disaggregated |", "|---|---|---|"]
    for name in names:
        cells = [
            next(
                (
                    f"{step.factor:.2f} ({step.low:.2f} to {step.high:.2f})"
                    for step in one.waterfall
                    if step.step == name
                ),
                "-",
            )
            for one in found.values()
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    write("factors", lines)
    curves = [
        Curve(
            label={"box": "over one box", "disaggregated": "disaggregated"}[name],
            points=[(point.interactivity, point.per_mw) for point in one.curve],
        )
        for name, one in found.items()
    ]
    title = "Kimi K2 Thinking, 8K/1K: GB200 NVL72 over HGX H200"
    (HERE / "scaling-claim.svg").write_text(line_chart(title, "tokens/s per user", "times, per MW", curves))
    lines = ["| | tokens/s per chip | layout | bound by |", "|---|---|---|---|"]
    for name, one in found.items():
        for system, deployment in one.points.items():
            if name == "box" or system == "hgx-h200":
                reached = deployment.point.tokens_per_s_per_chip
                cells = (
                    f"{rate(reached.value)} ({_ends(reached)})",
                    layout_words(deployment),
                    deployment.binding,
                )
                lines.append(f"| {system} | {' | '.join(cells)} |")
    write("layouts", lines)


def _kinds() -> list[str]:
    return [
        "per chip",
        *(f"per MW, {words}" for words in POWERS.values()),
        *(f"per $, {price}" for price in PRICES),
    ]


def _ratios(comparison: Comparison) -> list[str]:
    """Power and price are known, so other ones are the same ratio times another factor."""
    first, last = (load_system(name) for name in comparison.points)
    band = comparison.ratio.per_chip
    factors = [
        1.0,
        *(first.power_w[power] / last.power_w[power] for power in POWERS),
        *(first.usd_per_chip_hour[price] / last.usd_per_chip_hour[price] for price in PRICES),
    ]
    return [
        f"{plain(band.value * factor)} ({plain(band.low * factor)} to {plain(band.high * factor)})"
        for factor in factors
    ]


def _ends(band: Band) -> str:
    return f"{rate(band.low)} to {rate(band.high)}"


def ladder() -> None:
    """DeepSeek-R1 step by step, beside what was measured."""
    sweep = import_module("rackscale.plan.sweep").sweep
    lines = [
        "| step | measured | planned, experts in one domain | planned, free | layout |",
        "|---" * 5 + "|",
    ]
    for system, weights, role, chips, measured in LADDER:
        asked = question("deepseek-r1", system, weights=weights, role=role, chips=chips, mean_length=0.9)
        inside = replace(asked, max_ep=asked.system.domain_chips)
        (near,), (row,) = (sweep(one, [read_range("isl=8192")]).rows for one in (inside, asked))
        assert row.deployment is not None
        lines.append(
            f"| {system} {weights.upper()} {role} | {measured:,} | {rate(near.reached or 0)} "
            f"| {rate(row.reached or 0)} | {layout_words(row.deployment)} |"
        )
    write("ladder", lines)


def boxes() -> None:
    """The same chips in domains of 72 and of 8, beside what was measured."""
    lines = ["| tokens/s per user | measured | planned |", "|---|---|---|"]
    for level, measured in BOXES.items():
        asked = question(
            "deepseek-r1",
            isl=1024,
            osl=1024,
            interactivity=float(level),
            weights="nvfp4",
            role="disaggregated",
            mean_length=0.9,
            speculative=True,
        )
        box, rack = (row.reached for row in swept(asked, "system=hgx-b200,gb200-nvl72").rows)
        lines.append(f"| {level} | {measured:g} | {plain(rack / box) if rack and box else '-'} |")
    write("boxes", lines)


def racks() -> None:
    """The same model on every rack, on 72 chips of each."""
    lines = [
        "| system | tokens/s per user | tokens/s per chip | per MW (IT) | $ per M tokens |",
        "|---|---|---|---|---|",
    ]
    for level in LEVELS:
        for row in swept(question(interactivity=level), f"system={RACKS}").rows:
            if row.deployment is None:
                lines.append(f"| {row.values['system']} | {level:g} | {row.why} | | |")
                continue
            point = row.deployment.point
            lines.append(
                f"| {row.values['system']} | {level:g} | {rate(point.tokens_per_s_per_chip.value)} "
                f"| {rate(point.tokens_per_s_per_mw)} | {plain(point.usd_per_mtok)} |"
            )
    write("racks", lines)


def grid() -> None:
    """Which shape suits which domain: the best cut of the experts for each size."""
    found = swept(
        question(interactivity=LEVELS[1]), "system.domain=8,24,72", "model.granularity=0.25,0.5,1,2,4"
    )
    values = sorted({float(row.values["model.granularity"]) for row in found.rows})
    lines = [
        "| domain | " + " | ".join(f"cut by {value:g}" for value in values) + " |",
        "|---" * (len(values) + 1) + "|",
    ]
    for domain in sorted({float(row.values["system.domain"]) for row in found.rows}):
        cells = [
            rate(row.reached) if row.reached else "-"
            for row in found.rows
            if row.values["system.domain"] == domain
        ]
        lines.append(f"| {domain:g} | {' | '.join(cells)} |")
    write("grid", lines)


def write(name: str, lines: Sequence[str]) -> None:
    """Put a table between its marks in the page."""
    start, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
    before, _, rest = PAGE.read_text().partition(start)
    _, _, after = rest.partition(end)
    PAGE.write_text(before + start + "\n".join(lines) + "\n" + end + after)


STUDIES: dict[str, Callable[[], None]] = {
    "claim": claim,
    "ladder": ladder,
    "boxes": boxes,
    "domain": lambda: over(
        "domain",
        "Kimi K2 on GB200 chips in domains of another size",
        "chips in a domain",
        "system.domain=4,8,12,16,24,36,48,72,144",
        (*LEVELS, 100.0),
        chips=144,
    ),
    "bandwidth": lambda: over(
        "bandwidth", "With other memory bandwidth", "bytes/s of a chip", "system.hbm_bandwidth=1TB..32TB/11"
    ),
    "memory": lambda: over(
        "memory", "With other sizes of memory", "bytes of a chip", "system.hbm_bytes=24GB..768GB/11"
    ),
    "link": lambda: over(
        "link", "With other scale-up links", "bytes/s of a chip", "system.link=50GB..3.2TB/13"
    ),
    "network": lambda: over(
        "network",
        "Domains of 8 joined by another network",
        "bytes/s of a chip",
        "system.network=12.5GB..800GB/13",
        system="hgx-b200",
    ),
    "granularity": lambda: over(
        "granularity",
        "Experts cut finer, parameters staying",
        "parts of an expert",
        "model.granularity=0.125..8",
    ),
    "sparsity": lambda: over(
        "sparsity",
        "More experts for each active one, parameters staying",
        "experts for each active one",
        "model.sparsity=6..384",
    ),
    "top-k": lambda: over("top-k", "More active experts", "experts of a token", "model.top_k=1..64"),
    "width": lambda: over("width", "Wider experts", "elements", "model.expert_width=256..8192"),
    "context": lambda: over("context", "Longer requests", "tokens in and out", "context=2048..131072"),
    "racks": racks,
    "grid": grid,
}


def main(names: Sequence[str]) -> None:
    """All studies, or those that are named."""
    for name in names or STUDIES:
        STUDIES[name]()
        sys.stderr.write(f"{name}\n")


if __name__ == "__main__":
    main(sys.argv[1:])
