"""Numbers as a reader wants them: three or four digits and a unit."""

import math
from collections.abc import Callable

from rackscale.plan.types import Band

NONE = "\N{EN DASH}"
TIMES = "\N{MULTIPLICATION SIGN}"
MINUS = "\N{MINUS SIGN}"
PREFIXES = ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
SECONDS = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns"))


def plain(value: float, digits: int = 3) -> str:
    """So many digits and all before the point: 9,240 and 36.3 and 0.0421. A whole number is left whole."""
    if not math.isfinite(value):
        return NONE
    if value == 0:
        return "0"
    decimals = max(digits - 1 - math.floor(math.log10(abs(value))), 0)
    text = f"{value:,.{decimals}f}"
    whole = float(value).is_integer() and decimals > 0
    return f"{value:,.0f}" if whole else text


def rate(value: float) -> str:
    """9,240, and from a hundred thousand on 0.369 M."""
    return f"{plain(value / 1e6)} M" if math.isfinite(value) and abs(value) >= 1e5 else plain(value)


def scaled(value: float, unit: str) -> str:
    """With a decimal prefix: 71.4 GB."""
    if not math.isfinite(value):
        return NONE
    size, prefix = next(((size, prefix) for size, prefix in PREFIXES if abs(value) >= size), (1.0, ""))
    return f"{plain(value / size)} {prefix}{unit}"


def seconds(value: float) -> str:
    """27.5 ms."""
    if not math.isfinite(value) or value == 0:
        return NONE if value else "0 s"
    size, unit = next(((size, unit) for size, unit in SECONDS if abs(value) >= 0.9995 * size), SECONDS[-1])
    return f"{plain(value / size)} {unit}"


def gigabytes(value: float) -> str:
    """71.4 GB, always in GB and with the same decimals: columns are compared."""
    return f"{value / 1e9:,.1f} GB" if value >= 0.95e9 else f"{value / 1e9:.2f} GB"


def dollars(value: float) -> str:
    """$0.0421."""
    return f"${plain(value)}"


def times(value: float) -> str:
    """2.31 after its sign."""
    return f"{TIMES}{plain(value)}"


def exponent(value: float) -> str:
    """0.62, with two decimals and a sign where it is below 0."""
    text = f"{abs(value):.2f}"
    return f"{MINUS}{text}" if value < 0 and float(text) else text


def percent(share: float) -> str:
    """Of 1: 54 %, and below ten 3.1 %."""
    if not math.isfinite(share):
        return NONE
    if 0 < share < 0.0005:
        return "< 0.1 %"
    return f"{100 * share:.0f} %" if abs(share) >= 0.0995 or share == 0 else f"{100 * share:.1f} %"


def change(ratio: float) -> str:
    """Of a value against another, as a difference with its sign."""
    if not math.isfinite(ratio):
        return NONE
    if ratio >= 2:
        return times(ratio)
    rounded = round(100 * (ratio - 1))
    return f"{MINUS if rounded < 0 else '+' if rounded > 0 else '±'}{abs(rounded)} %"


def interval(band: Band, form: Callable[[float], str]) -> str:
    """8,300 to 10,200, on one line."""
    return spread(form(band.low), form(band.high))


def spread(low: str, high: str) -> str:
    """From one number to another."""
    return f"{low} to {high}".replace(" ", "\N{NO-BREAK SPACE}")


def plural(number: float, noun: str) -> str:
    """1 group, 2 groups."""
    return f"{plain(number)} {noun}{'' if number == 1 else 's'}"
