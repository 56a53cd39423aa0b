"""What `--vary PATH=RANGE` says: which values are looked at.

a..b: doubling from a, and b; a..b/n: n values whose ratios are equal; a,b,c: those. Bytes, and bytes per
second, may have a decimal prefix (189GB, 1.8TB); names are of the catalog.
"""

import math
import re
from collections.abc import Sequence

from rackscale.core import SpecError
from rackscale.plan.sweep.paths import Axis, axis_of

MOST_VALUES = 64
_NUMBER = re.compile(r"([0-9.]+(?:e[+-]?[0-9]+)?)([kMGT]?)B?", re.IGNORECASE)
_PREFIXES = {"": 1.0, "k": 1e3, "m": 1e6, "g": 1e9, "t": 1e12}
_EXAMPLE = "give for example system.domain=8..576, model.experts=64..1024/5 or isl=1024,8192"


def read_range(text: str) -> tuple[Axis, tuple[float | str, ...]]:
    """The axis, and its values in the order in which they are given; those of a..b rise.

    Raises SpecError where it is not PATH=RANGE, or a value is no number, or makes no sense on the axis.
    """
    path, sign, values = text.partition("=")
    if not sign or not values.strip():
        raise SpecError(f"--vary {text} has no range", hint=_EXAMPLE)
    axis = axis_of(path.strip())
    words = [word.strip() for word in values.split(",")]
    if axis.names:
        return axis, _distinct(words, text)
    if ".." not in values:
        return axis, _distinct([axis.legal(_number(word, text)) for word in words], text)
    if len(words) > 1:
        raise SpecError(f"--vary {text} is both a list and a range", hint=_EXAMPLE)
    first, _, rest = values.partition("..")
    last, slash, count = rest.partition("/")
    low, high = _number(first, text), _number(last, text)
    if not low < high:
        raise SpecError(f"--vary {text} does not rise", hint=_EXAMPLE)
    spaced = _spaced(low, high, _count(count, text)) if slash else _doubled(low, high, text)
    return axis, _distinct(sorted({axis.legal(value) for value in spaced}), text)


def _number(word: str, text: str) -> float:
    match = _NUMBER.fullmatch(word.strip())
    try:
        value = float(match[1]) * _PREFIXES[match[2].lower()] if match else math.nan
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise SpecError(f"{word.strip() or 'nothing'} in --vary {text} is no number above 0", hint=_EXAMPLE)
    return value


def _count(word: str, text: str) -> int:
    if not word.strip().isdigit() or not 2 <= int(word) <= MOST_VALUES:
        raise SpecError(
            f"--vary {text} asks for {word.strip() or 'no'} values", hint=f"give 2 to {MOST_VALUES} of them"
        )
    return int(word)


def _doubled(low: float, high: float, text: str) -> list[float]:
    count = math.floor(math.log2(high / low) + 1e-9) + 1
    if count >= MOST_VALUES:
        raise SpecError(f"--vary {text} doubles {count} times", hint=f"give at most {MOST_VALUES} values")
    values = [low * 2**number for number in range(count)]
    return values if math.isclose(values[-1], high) else [*values, high]


def _spaced(low: float, high: float, count: int) -> list[float]:
    return [low * (high / low) ** (number / (count - 1)) for number in range(count)]


def _distinct(values: Sequence[float | str], text: str) -> tuple[float | str, ...]:
    found = tuple(dict.fromkeys(values))
    if len(found) > MOST_VALUES:
        raise SpecError(f"--vary {text} has {len(found)} values", hint=f"give at most {MOST_VALUES}")
    return found
