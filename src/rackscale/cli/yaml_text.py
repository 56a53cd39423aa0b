"""Objects as YAML: block style, and scalars that every reader takes for the same."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

# Texts that mean themselves without quotes; all others are quoted.
PLAIN = re.compile(r"[A-Za-z/][A-Za-z0-9_./-]*")
NOT_TEXTS = frozenset({"true", "false", "yes", "no", "on", "off", "y", "n", "null"})
BLOCK = re.compile(r"([!-~][ -~]*\n|\n)+")  # lines of printable ASCII that begin without a space


def yaml_text(documents: Sequence[Mapping[str, Any]]) -> str:
    """One stream. Values are str, int, float, bool, None, and mappings and sequences of them."""
    return "".join("---\n" + "\n".join(_lines(document)) + "\n" for document in documents)


def _lines(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping) and value:
        for key, item in value.items():
            yield from _under(_scalar(key) + ":", item)
    elif isinstance(value, list | tuple) and value:
        for item in value:
            first, *rest = _lines(item)
            yield "- " + first
            yield from map(_indented, rest)
    else:
        yield _scalar(value)


def _under(head: str, item: Any) -> Iterator[str]:
    if isinstance(item, Mapping | list | tuple) and item:
        yield head
        yield from map(_indented, _lines(item))
    elif isinstance(item, str) and _is_block(item):
        yield head + " |"
        yield from map(_indented, item.splitlines())
    else:
        yield f"{head} {_scalar(item)}"


def _indented(line: str) -> str:
    return "  " + line if line else ""


def _is_block(text: str) -> bool:
    """Whether the text is lines, the first and the last of them not empty."""
    return bool(BLOCK.fullmatch(text)) and not text.startswith("\n") and not text.endswith("\n\n")


def _scalar(value: Any) -> str:
    if isinstance(value, str) and PLAIN.fullmatch(value) and value.lower() not in NOT_TEXTS:
        return str(value)
    # JSON's escapes are YAML's, but for the halves of characters beyond the first plane.
    quoted = json.dumps(value, ensure_ascii=False)
    return re.sub("[^ -~]", lambda match: f"\\U{ord(match[0]):08x}", quoted)
