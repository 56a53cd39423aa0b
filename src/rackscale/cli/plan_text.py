"""A plan on a terminal: the answer first, then why, then what else there is."""

from collections.abc import Iterator, Sequence

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from rich.text import Text

from rackscale.cost.power import joules_per_token
from rackscale.plan.question import Question
from rackscale.plan.report.figures import dollars, interval, plain, rate, seconds
from rackscale.plan.report.words import pool_words, split_words
from rackscale.plan.types import OperatorTime, Plan, PlannedDeployment
from rackscale.specs import Role

PIPE_WIDTH = 160  # columns where stdout is no terminal
FRONTIER_LINES = 10


def print_plan(plan: Plan, question: Question, *, explain: bool) -> None:
    """explain: every operator too."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=PIPE_WIDTH)
    console.print(Text(_asked(plan, question), style="dim"))
    console.print()
    console.print(_answer(plan))
    console.print(_figures(plan, question))
    console.print(Text.assemble("  Bound by ", (plan.best.binding, "bold"), "."))
    console.print()
    if plan.alternatives:
        console.print(_alternatives(plan))
    console.print(_frontier(plan))
    if explain:
        for role, operators in plan.best.operators.items():
            console.print(_operators(role, operators))
        for role, shares in plan.best.memory.items():
            parts = ", ".join(f"{share.name} {share.bytes / 1e9:.1f}" for share in shares)
            console.print(f"Memory of a {role} rank, GB: {parts}")
    console.print(Text(f"{plan.searched:,} layouts in {plan.seconds:.2g} s", style="dim"))


def _asked(plan: Plan, question: Question) -> str:
    wishes = []
    if plan.interactivity is not None:
        wishes.append(f"at least {plain(plan.interactivity)} tokens/s per user")
    if plan.ttft_s is not None:
        wishes.append(f"the first token in {seconds(plan.ttft_s)}")
    level = f", {' and '.join(wishes)}" if wishes else ""
    lengths = f"{plan.isl:,} tokens in and {plan.osl:,} out"
    return f"{question.model.title} on {question.system.title}, {lengths}{level}"


def _answer(plan: Plan) -> Text:
    band = plan.best.point.tokens_per_s_per_chip
    return Text.assemble(
        "  ",
        (f"{rate(band.value)} tokens/s per chip", "bold green"),
        f"  ({interval(band, rate)})\n",
        "  ",
        (_layout(plan.best), "bold"),
    )


def _layout(one: PlannedDeployment) -> str:
    pools = " and ".join(f"{pool_words(pool)} ({split_words(pool)})" for pool in one.pools)
    return f"{pools}, experts in {one.weights.upper()}"


def _short(one: PlannedDeployment) -> str:
    """12 prefill x4 EP4 + 1 decode x24 EP24, NVFP4: groups, chips of each, and how they share experts."""
    pools = " + ".join(
        f"{pool.groups} {pool.role} x{pool.ranks} EP{pool.ep}{f' TP{pool.tp}' if pool.tp > 1 else ''}"
        for pool in one.pools
    )
    return f"{pools}, {one.weights.upper()}"


def _figures(plan: Plan, question: Question) -> Table:
    point = plan.best.point
    table = Table.grid(padding=(0, 2))
    for style in ("", "bold", "", "dim"):
        table.add_column(style=style)
    speed = f"{plain(1 / point.tpot_s.value)} tokens/s per user"
    table.add_row("  TPOT", seconds(point.tpot_s.value), interval(point.tpot_s, seconds), speed)
    table.add_row("", seconds(point.tpot_p99_s), "99th percentile, requests at random", "")
    table.add_row("  TTFT", seconds(point.ttft_s.value), interval(point.ttft_s, seconds), "median")
    table.add_row("", seconds(point.ttft_p99_s), "99th percentile, requests at random", "")
    watts = question.system.power_w[question.power]
    power = f"{plain(watts / 1000)} kW a chip, {question.power}"
    energy = joules_per_token(point.tokens_per_s_per_chip.value, watts)
    table.add_row("  Power", rate(point.tokens_per_s_per_mw), "tokens/s per MW", power)
    table.add_row("", f"{plain(energy)} J", "for each token, input or output", "")
    price = f"{dollars(question.system.usd_per_chip_hour[question.price])} a chip-hour, {question.price}"
    table.add_row("  Price", dollars(point.usd_per_mtok), "per million tokens", price)
    table.add_row("  Size", f"{point.chips} chips", f"{point.concurrency:,.0f} requests at once", "")
    return table


def _alternatives(plan: Plan) -> Table:
    table = Table(box=SIMPLE, title="Not chosen", title_justify="left", title_style="bold", pad_edge=True)
    for heading in ("kind, and why not", "tokens/s per chip", "layout"):
        table.add_column(heading, justify="right" if heading.startswith("tokens") else "left")
    for other in plan.alternatives:
        value = other.deployment.point.tokens_per_s_per_chip.value
        table.add_row(other.why_not, rate(value), _short(other.deployment))
    return table


def _frontier(plan: Plan) -> Table:
    table = Table(box=SIMPLE, title="Frontier", title_justify="left", title_style="bold")
    for heading in ("tokens/s per user", "tokens/s per chip", "90 %", "TTFT"):
        table.add_column(heading, justify="right")
    for heading in ("layout", "bound by"):
        table.add_column(heading)
    for one in _thinned(plan.pareto):
        band = one.point.tokens_per_s_per_chip
        table.add_row(
            plain(1 / one.point.tpot_s.value),
            rate(band.value),
            interval(band, rate),
            seconds(one.point.ttft_s.value),
            _short(one),
            one.binding,
        )
    return table


def _thinned(shown: Sequence[PlannedDeployment]) -> Iterator[PlannedDeployment]:
    step = max(1, -(-len(shown) // FRONTIER_LINES))
    yield from shown[::step]


def _operators(role: Role, operators: Sequence[OperatorTime]) -> Table:
    table = Table(box=SIMPLE, title=f"A {role} rank's step", title_justify="left", title_style="bold")
    table.add_column("operator")
    table.add_column("time", justify="right")
    for heading in ("bound by", "formula", "source"):
        table.add_column(heading)
    for operator in operators:
        if operator.seconds:
            table.add_row(
                operator.name, seconds(operator.seconds), operator.bound, operator.formula, operator.source
            )
    table.add_row("all", seconds(sum(operator.seconds for operator in operators)), "", "", "")
    return table
