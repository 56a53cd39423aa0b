"""The report of a sweep."""

from collections.abc import Mapping

from rackscale.plan.report.appendix import folded, operator_table
from rackscale.plan.report.figures import exponent, interval, percent, plain, plural, rate, spread, times
from rackscale.plan.report.frame import Head, Section, page
from rackscale.plan.report.markup import Markup, element, joined, style
from rackscale.plan.report.sweep_chart import is_number, number_words, sweep_chart
from rackscale.plan.report.table import table
from rackscale.plan.report.tiles import Tile, tiles
from rackscale.plan.report.words import STEPS, layout_words, speed
from rackscale.plan.sweep.types import Fit, Row, Sweep, Value
from rackscale.plan.types import Band

NONE_REACHED = "none"


def sweep_page(sweep: Sweep) -> str:
    """One HTML document without anything outside of it."""
    paths = list(sweep.rows[0].values)
    head = Head(
        kind="sweep",
        title=f"{' and '.join(paths)}, {sweep.model} on {sweep.system}",
        asked=_asked(sweep, paths),
        answer=_answer(sweep),
        tiles=_tiles(sweep),
    )
    return page(head, [*_curves(sweep, paths), *_regimes(sweep), _rows(sweep, paths), *_appendix(sweep)])


def _asked(sweep: Sweep, paths: list[str]) -> Markup:
    level = "" if sweep.interactivity is None else f" at {plain(sweep.interactivity)} tokens/s per user"
    return element(
        "p",
        element("b", sweep.model),
        " on ",
        element("b", sweep.system),
        f", {sweep.isl:,} tokens in and {sweep.osl:,} out{level}: what do other values of ",
        element("b", " and ".join(paths)),
        " make of it?",
    )


def _answer(sweep: Sweep) -> Markup:
    answer = sweep.answer
    if answer is None:
        return joined(element("b", "Nothing reaches the level of service"), " with any of these values.")
    parts = [
        f"{answer.question[:1].upper()}{answer.question[1:]}: ",
        element("b", values_words(answer.best.values)),
        f", with {rate(answer.best.reached or 0.0)} {sweep.unit}",
    ]
    if answer.gain is not None:
        parts.append(f", {times(answer.gain)} against no change")
    if answer.least is not None and answer.least != answer.best:
        parts += [". Nearly as much is had from ", element("b", values_words(answer.least.values)), " on"]
    return joined(*parts, ".")


def _tiles(sweep: Sweep) -> Markup:
    reached = [row for row in sweep.rows if row.reached is not None]
    shown = [
        Tile(
            name="Looked at",
            value=len(sweep.rows),
            form=plain,
            unit="values" if len(sweep.rows[0].values) == 1 else "pairs of values",
            notes=[f"{len(sweep.rows) - len(reached)} without a deployment"],
        )
    ]
    if sweep.answer is not None:
        best, gain = sweep.answer.best, sweep.answer.gain
        most = Tile(
            name="Most",
            value=best.reached or 0.0,
            form=rate,
            unit=sweep.unit,
            band=band_of(best),
            notes=[values_words(best.values)],
            main=True,
        )
        shown.insert(0, most)
        if gain is not None:
            shown.insert(1, Tile(name="Gain", value=gain, form=times, notes=["against no change"]))
    shown += [
        Tile(
            name=f"Exponent over {fit.over}",
            value=fit.regime.exponent,
            form=exponent,
            notes=[
                spread(exponent(fit.regime.low), exponent(fit.regime.high)),
                f"from {number_words(fit.regime.first)} to {number_words(fit.regime.last)}",
            ],
        )
        for fit in sweep.fits
        if not fit.at
    ]
    return tiles(*shown)


def values_words(values: Mapping[str, Value]) -> str:
    """system.domain 72, model.experts 384."""
    return ", ".join(f"{path} {number_words(value)}" for path, value in values.items())


def band_of(row: Row) -> Band | None:
    """Of what is reached: the throughput's interval in proportion, since power and price are known."""
    if row.deployment is None or row.reached is None:
        return None
    found = row.deployment.point.tokens_per_s_per_chip
    scale = row.reached / found.value
    return Band(value=row.reached, low=found.low * scale, high=found.high * scale)


def _curves(sweep: Sweep, paths: list[str]) -> list[Section]:
    numbers = [path for path in paths if is_number(sweep.rows, path)]
    across = max(numbers, key=lambda path: len({row.values[path] for row in sweep.rows}), default=None)
    if not any(row.reached for row in sweep.rows):
        return []
    if across is None:
        reading = "Each at its best deployment, with what binds."
        body = _bars(sweep)
        return [Section(key="curve", anchor="Names", title="By name", reading=reading, body=body, wide=True)]
    lines = "".join(f" A line for each {path}." for path in paths if path != across)
    missing = sum(row.reached is None for row in sweep.rows)
    rest = f" {plural(missing, 'value')} without a deployment left out." if missing else ""
    return [
        Section(
            key="curve",
            anchor="Curve",
            title=f"Over {across}",
            reading=f"Each point is the best deployment for its values, with its 90 % interval.{lines}{rest}",
            body=sweep_chart(sweep, across, band_of),
            wide=True,
        )
    ]


def _bars(sweep: Sweep) -> Markup:
    """The most first."""
    found = [(row, band) for row in sweep.rows if (band := band_of(row)) is not None]
    found.sort(key=lambda one: -one[1].value)
    most = found[0][1].value
    bars = [
        element(
            "li",
            element("span", ", ".join(str(value) for value in row.values.values()), class_="name"),
            element("b", rate(band.value)),
            element("span", percent(band.value / most), class_="share"),
            element(
                "span",
                element("i", class_="frontier", style=style(width=100 * band.value / most)),
                class_="track",
            ),
            element("span", "" if row.deployment is None else row.deployment.binding, class_="bound plain"),
        )
        for row, band in found
    ]
    return element("ul", *bars, class_="bars named")


def _regimes(sweep: Sweep) -> list[Section]:
    if not sweep.fits:
        return []
    names = ("Over", "Where", "From", "To", "Exponent", "90 % interval", "Binding")
    return [
        Section(
            key="regimes",
            anchor="Regimes",
            title="Regimes",
            reading="Straight lines in logarithms: what is reached goes as the exponent's power.",
            body=table(names, [_regime(fit) for fit in sweep.fits], numbers=range(2, 6)),
            wide=True,
        )
    ]


def _regime(fit: Fit) -> tuple[str, ...]:
    one = fit.regime
    return (
        fit.over,
        values_words(fit.at),
        number_words(one.first),
        number_words(one.last),
        exponent(one.exponent),
        spread(exponent(one.low), exponent(one.high)),
        fit.binding,
    )


def _rows(sweep: Sweep, paths: list[str]) -> Section:
    names = (*paths, sweep.unit, "90 % interval", "of the most", "Tokens/s per user", "Layout", "Binding")
    most = max((row.reached or 0.0 for row in sweep.rows), default=0.0)
    rows = [_row(row, most) for row in sweep.rows]
    return Section(
        key="rows",
        anchor="Values",
        title="Every value",
        reading="Each with a plan of its own.",
        body=table(names, rows, numbers=range(len(paths) + 4)),
        wide=True,
    )


def _row(row: Row, most: float) -> tuple[str, ...]:
    values = [number_words(value) for value in row.values.values()]
    band, one = band_of(row), row.deployment
    if band is None or one is None:
        return (*values, NONE_REACHED, "", "", "", row.why, "")
    figures = (rate(band.value), interval(band, rate), percent(band.value / most), plain(speed(one)))
    return (*values, *figures, layout_words(one), one.binding)


def _appendix(sweep: Sweep) -> list[Section]:
    if sweep.answer is None or sweep.answer.best.deployment is None:
        return []
    best = sweep.answer.best
    assert best.deployment is not None
    steps = {STEPS[role]: shown for role, shown in best.deployment.operators.items()}
    return [
        Section(
            key="appendix",
            anchor="To argue with",
            title="To argue with",
            reading=f"Of the best: {values_words(best.values)}.",
            body=folded("Every operator: time, formula, source", operator_table(steps)),
            wide=True,
        )
    ]
