"""A sweep on a terminal: the answer, the regimes, and the curve."""

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from rich.text import Text

from rackscale.plan.question import Question
from rackscale.plan.report.figures import plain, rate, scaled, times
from rackscale.plan.report.words import layout_words
from rackscale.plan.sweep import AXES, Answer, Fit, Row, Sweep
from rackscale.plan.sweep.types import Value

PIPE_WIDTH = 160  # columns where stdout is no terminal
BAR = 40  # characters of the longest bar


def print_sweep(sweep: Sweep, question: Question) -> None:
    """All of it."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=PIPE_WIDTH)
    asked = f", {plain(sweep.interactivity)} tokens/s per user" if sweep.interactivity else ""
    lengths = f"{sweep.isl:,} tokens in and {sweep.osl:,} out"
    console.print(Text(f"{question.model.title} on {question.system.title}, {lengths}{asked}", style="dim"))
    console.print()
    if sweep.answer is None:
        console.print("No value reaches the level of service.")
    else:
        console.print(_answer(sweep.answer, sweep.unit))
    console.print()
    if sweep.fits:
        console.print(_regimes(sweep))
    console.print(_rows(sweep))


def _answer(answer: Answer, unit: str) -> Text:
    reached = rate(answer.best.reached or 0.0)
    text = Text.assemble(
        f"{answer.question.capitalize()}: ",
        (_values(answer.best), "bold green"),
        f", {reached} {unit}",
        f", {times(answer.gain)} of what it is now" if answer.gain is not None else "",
    )
    least = answer.least
    if least is not None and least.reached is not None and least is not answer.best:
        text.append(f"; {_values(least)} is within 5 % of that")
    return text.append(".")


def _values(row: Row) -> str:
    return ", ".join(f"{path} {value_words(path, value)}" for path, value in row.values.items())


def value_words(path: str, value: Value) -> str:
    """With the path's unit, where it has one."""
    if isinstance(value, str):
        return value
    unit = AXES[path].unit
    return scaled(value, unit) if unit else rate(value)


def _regimes(sweep: Sweep) -> Table:
    """Knees are where one regime ends and the next begins."""
    table = Table(box=SIMPLE, show_edge=False, pad_edge=False)
    varied = any(fit.at for fit in sweep.fits)
    for heading in (
        "over",
        *(("at",) if varied else ()),
        "from",
        "to",
        "exponent",
        "90 %",
        "mostly bound by",
    ):
        table.add_column(heading, justify="right" if heading in {"from", "to", "exponent"} else "left")
    for fit in sweep.fits:
        table.add_row(*_regime(fit, varied=varied))
    return table


def _regime(fit: Fit, *, varied: bool) -> list[str]:
    regime = fit.regime
    at = ", ".join(f"{path} {value_words(path, value)}" for path, value in fit.at.items())
    return [
        fit.over,
        *((at,) if varied else ()),
        value_words(fit.over, regime.first),
        value_words(fit.over, regime.last),
        f"{regime.exponent:+.2f}",
        f"{regime.low:+.2f} to {regime.high:+.2f}",
        fit.binding,
    ]


def _rows(sweep: Sweep) -> Table:
    table = Table(box=SIMPLE, show_edge=False, pad_edge=False)
    paths = list(sweep.rows[0].values)
    for heading in (*paths, sweep.unit, "", "layout", "bound by"):
        table.add_column(heading, justify="right" if heading in {*paths, sweep.unit} else "left")
    most = max((row.reached or 0.0 for row in sweep.rows), default=0.0)
    for row in sweep.rows:
        cells = [value_words(path, value) for path, value in row.values.items()]
        if row.deployment is None or row.reached is None:
            table.add_row(*cells, "-", "", row.why, "")
        else:
            bar = Text("━" * round(BAR * row.reached / most), style="green")
            layout = layout_words(row.deployment)
            table.add_row(*cells, rate(row.reached), bar, layout, row.deployment.binding)
    return table
