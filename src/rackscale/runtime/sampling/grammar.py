"""Guides as grammars of llguidance, and how large they may be."""

import json
from typing import TYPE_CHECKING, Any, Final, assert_never

import msgspec
from llguidance import LLMatcher

from rackscale.core import Guide, GuideKind, SpecError

if TYPE_CHECKING:
    from llguidance._lib import JsonCompileOptions  # a name of the library's stub alone

MAX_SOURCE_BYTES: Final = 100_000
MAX_DEPTH: Final = 64  # nested arrays and objects of a JSON schema

# What `response_format: json_object` asks for.
JSON_OBJECT: Final = Guide(kind=GuideKind.JSON_SCHEMA, source='{"type":"object"}')

# Between two tokens of JSON at most one space: a small model would else spend its tokens on newlines.
# A schema's own "x-guidance" member overrides it.
_JSON_OPTIONS: "Final[JsonCompileOptions]" = {"whitespace_pattern": r"\x20"}


def grammar_of(guide: Guide) -> str:
    """The grammar as the library takes it.

    Raises SpecError where the source is too large or is not JSON of the right form. Whether the
    grammar means anything is the library's to say.
    """
    if len(guide.source.encode()) > MAX_SOURCE_BYTES:
        raise SpecError(
            f"the {guide.kind.value} guide is over {MAX_SOURCE_BYTES} bytes",
            hint="give a smaller one",
        )
    match guide.kind:
        case GuideKind.JSON_SCHEMA:
            schema = _schema(guide.source)
            return str(LLMatcher.grammar_from_json_schema(schema, defaults=_JSON_OPTIONS))
        case GuideKind.REGEX:
            return str(LLMatcher.grammar_from_regex(guide.source))
        case GuideKind.CHOICE:
            return str(LLMatcher.grammar_from_lark(_choice(guide.source)))
        case GuideKind.GRAMMAR:
            return str(LLMatcher.grammar_from_lark(guide.source))
    assert_never(guide.kind)


def _schema(source: str) -> dict[str, Any]:
    schema: dict[str, Any] = _decoded(source, dict[str, Any], "a JSON object")
    if _depth(schema) > MAX_DEPTH:
        raise SpecError(f"the JSON schema is nested more than {MAX_DEPTH} deep", hint="use $defs and $ref")
    return schema


def _choice(source: str) -> str:
    """One terminal of literals: a JSON string is a literal of Lark too."""
    choices: list[str] = _decoded(source, list[str], "a JSON list of strings")
    if not choices:
        raise SpecError("there is nothing to choose from", hint="give at least one choice")
    literals = " | ".join(json.dumps(choice, ensure_ascii=False) for choice in choices)
    return f"start: CHOICE\nCHOICE: {literals}\n"


def _decoded(source: str, kind: Any, name: str) -> Any:
    try:
        return msgspec.json.decode(source, type=kind)
    except (msgspec.DecodeError, RecursionError, UnicodeEncodeError) as error:
        raise SpecError(f"the guide is not {name}: {error}", hint=f"give {name}") from None


def _depth(value: Any) -> int:
    """How deep arrays and objects are nested; by a stack, whatever the depth."""
    deepest = 0
    stack = [(value, 1)]
    while stack:
        inner, depth = stack.pop()
        if isinstance(inner, dict):
            stack += [(member, depth + 1) for member in inner.values()]
        elif isinstance(inner, list):
            stack += [(member, depth + 1) for member in inner]
        else:
            continue
        deepest = max(deepest, depth)
    return deepest
