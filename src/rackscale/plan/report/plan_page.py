"""The report of a plan."""

from rackscale.plan.report.alternatives import alternatives
from rackscale.plan.report.appendix import folded, frontier_table, operator_table
from rackscale.plan.report.figures import dollars, interval, plain, plural, rate, seconds, spread
from rackscale.plan.report.frame import Head, Section, page
from rackscale.plan.report.frontier import frontier
from rackscale.plan.report.markup import Markup, element, joined
from rackscale.plan.report.memory import memory
from rackscale.plan.report.objective import GOALS, Goal
from rackscale.plan.report.operators import operators
from rackscale.plan.report.pools import pools
from rackscale.plan.report.rack import cabinets, rack
from rackscale.plan.report.system import System, system_words
from rackscale.plan.report.tiles import Tile, tiles
from rackscale.plan.report.words import STEPS, latency_words, pool_words, speed, split_words
from rackscale.plan.types import Objective, Plan
from rackscale.specs import Role

BESIDE_A_CHART = 2  # cabinets, more need the whole width


def plan_page(plan: Plan, system: System) -> str:
    """One HTML document without anything outside of it. system: the one that the plan is for."""
    goal = GOALS[plan.objective]
    head = Head(
        kind="plan",
        title=f"{plan.model} on {system_words(system)}",
        asked=_asked(plan, system),
        answer=_answer(plan, goal),
        tiles=_tiles(plan),
    )
    return page(head, [*_chosen(plan, goal, system), *_reasons(plan, goal, system)])


def _asked(plan: Plan, system: System) -> Markup:
    limits = []
    if plan.interactivity is not None:
        limits.append(f"at {plain(plan.interactivity)} tokens/s per user")
    if plan.ttft_s is not None:
        limits.append(f"with the first token within {seconds(plan.ttft_s)}")
    ends = " " + " and ".join(limits) if limits else ""
    asked = (
        f"{plan.isl:,} tokens in and {plan.osl:,} out{ends}: "
        f"which deployment gives the most {GOALS[plan.objective].unit}?"
    )
    return element("p", element("b", plan.model), " on ", element("b", system_words(system)), ", ", asked)


def _answer(plan: Plan, goal: Goal) -> Markup:
    best, band = plan.best, goal.of(plan.best.point)
    pools_said = " and ".join(f"{pool_words(pool)} ({split_words(pool)})" for pool in best.pools)
    return joined(
        element("b", f"{rate(band.value)} {goal.unit}"),
        element("span", f" ({interval(band, rate)})"),
        f", from {pools_said}, at {plain(speed(best))} tokens/s per user. Binding: ",
        element("b", best.binding),
        ".",
    )


def _tiles(plan: Plan) -> Markup:
    point = plan.best.point
    limit_tpot = None if plan.interactivity is None else 1 / plan.interactivity
    output = f"{rate(point.output_tokens_per_s_per_chip)} of them output"
    chip = Tile(
        name="Throughput",
        value=point.tokens_per_s_per_chip.value,
        form=rate,
        unit="tokens/s per chip",
        band=point.tokens_per_s_per_chip,
        notes=[output],
        main=plan.objective is Objective.CHIP,
    )
    tpot = Tile(
        name="Time per output token",
        value=point.tpot_s.value,
        form=seconds,
        band=point.tpot_s,
        limit=limit_tpot,
        notes=_latency_notes(point.tpot_p99_s, limit_tpot),
    )
    ttft = Tile(
        name="Time to first token",
        value=point.ttft_s.value,
        form=seconds,
        band=point.ttft_s,
        limit=plan.ttft_s,
        notes=_latency_notes(point.ttft_p99_s, plan.ttft_s),
    )
    power = Tile(
        name="By power",
        value=point.tokens_per_s_per_mw,
        form=rate,
        unit="tokens/s per MW",
        band=GOALS[Objective.MW].of(point),
        main=plan.objective is Objective.MW,
    )
    dollar = GOALS[Objective.USD].of(point)
    price = Tile(
        name="Price",
        value=point.usd_per_mtok,
        form=dollars,
        unit="per M tokens",
        notes=[spread(dollars(1e6 / dollar.high), dollars(1e6 / dollar.low))],
        main=plan.objective is Objective.USD,
    )
    size = Tile(
        name="Size",
        value=point.chips,
        form=plain,
        unit="chips",
        notes=[f"{plural(round(point.concurrency), 'request')} at once"],
    )
    return tiles(chip, tpot, ttft, power, price, size)


def _latency_notes(p99_s: float, limit_s: float | None) -> list[str]:
    return [f"p99 {seconds(p99_s)}"] + ([] if limit_s is None else [f"asked: {seconds(limit_s)}"])


def _chosen(plan: Plan, goal: Goal, system: System) -> list[Section]:
    best = plan.best
    reading = (
        f"{plural(len(plan.pareto), 'deployment')} that nothing beats in both, "
        f"of {plan.searched:,} layouts looked at. "
        "Band and whiskers: 90 % intervals."
    )
    wide = cabinets(best.pools, system) > BESIDE_A_CHART
    return [
        Section(
            key="frontier",
            anchor="Frontier",
            title="Frontier",
            reading=reading,
            body=frontier(best, plan.pareto, plan.alternatives, goal, plan.interactivity),
            wide=wide,
        ),
        Section(
            key="rack",
            anchor="Rack",
            title="Rack",
            reading=f"{plural(best.point.chips, 'chip')} of {system_words(system)}, "
            f"domains of {system.domain_chips}. Experts in {best.weights.upper()}.",
            body=joined(rack(best.pools, system), pools(best.pools)),
            wide=wide,
        ),
    ]


def _reasons(plan: Plan, goal: Goal, system: System) -> list[Section]:
    best = plan.best
    sections = [
        Section(
            key=f"time-{role}",
            anchor=STEPS[role],
            title=STEPS[role],
            reading=_step_reading(plan, role),
            body=operators(best.operators[role]),
        )
        for role in (Role.DECODE, Role.PREFILL, Role.MIXED)
        if best.operators.get(role)
    ]
    ranks = {f"{role} rank".capitalize(): shares for role, shares in best.memory.items() if shares}
    if ranks:
        capacity = dict.fromkeys(ranks, system.chip.hbm_bytes)
        reading = f"Of a chip's {plain(system.chip.hbm_bytes / 1e9)} GB. Binding: {best.binding}."
        body = memory(ranks, capacity)
        sections.append(
            Section(
                key="memory", anchor="Memory", title="Memory by rank", reading=reading, body=body, wide=True
            )
        )
    sections.append(
        Section(
            key="alternatives",
            anchor="Not chosen",
            title="Not chosen",
            reading="Other kinds of layout, each at its best."
            if plan.alternatives
            else "Nothing else came near.",
            body=alternatives(best, plan.alternatives, goal),
            wide=True,
        )
    )
    steps = {STEPS[role]: shown for role, shown in best.operators.items()}
    per_s = f", {rate(plan.searched / plan.seconds)} a second" if plan.seconds > 0 else ""
    appendix = joined(
        folded("Every operator: time, formula, source", operator_table(steps)),
        folded("Every point of the frontier", frontier_table(plan.pareto, goal)),
    )
    said = f"{plan.searched:,} layouts in {seconds(plan.seconds)}{per_s}. {latency_words(best)}."
    sections.append(
        Section(
            key="appendix",
            anchor="To argue with",
            title="To argue with",
            reading=said,
            body=appendix,
            wide=True,
        )
    )
    return sections


def _step_reading(plan: Plan, role: Role) -> str:
    total = seconds(sum(operator.seconds for operator in plan.best.operators[role]))
    point = plan.best.point
    if role is Role.PREFILL:
        waited = seconds(point.ttft_s.value)
        return f"{total} for the prompts of a step; time to first token is {waited}, with waiting."
    return f"{total} for a token of each answer; time per output token is {seconds(point.tpot_s.value)}."
