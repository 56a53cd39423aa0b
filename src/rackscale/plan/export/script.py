"""Shell scripts: one command, its flags a line each."""

import shlex
from collections.abc import Iterable, Sequence

from rackscale.plan.export.flag_table import Variable


def command(program: Sequence[str], words: Iterable[Sequence[str]], *, last: str = "") -> str:
    """`exec PROGRAM`, then flags with their values; last: words as they are."""
    lines = ["exec " + shlex.join(program)]
    lines += [line(flag) for flag in words]
    if last:
        lines.append(last)
    return " \\\n  ".join(lines) + "\n"


def line(words: Iterable[str]) -> str:
    """Words as a shell takes them."""
    return " ".join(map(_quoted, words))


def _quoted(word: str) -> str:
    return f'"{word}"' if isinstance(word, Variable) else shlex.quote(word)
