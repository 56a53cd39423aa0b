"""A request whose worker died comes to another one: as a longer prompt, with less to say.

Dynamo's frontend adds the tokens that the client has to the prompt and takes their number from max_tokens.
The gateway writes beside each request what max_tokens was at first (`annotate`). So the next worker can tell
prompt from output (`undo`): lengths, penalties, grammars and what is counted stay as they were.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from rackscale.core import TokenId

ANNOTATION = "rackscale-max-tokens:"
OPEN = 1 << 20  # sent for a client that gave no max_tokens: the most that the frontend takes
LIMIT_FIELDS = {
    "/v1/completions": ("max_tokens",),
    "/v1/chat/completions": ("max_completion_tokens", "max_tokens"),
}


def annotate(path: str, fields: dict[str, Any]) -> None:
    """Write down how many tokens a request asks for. What is no number is left to the frontend to refuse."""
    names = LIMIT_FIELDS[path]
    given = next((fields[name] for name in names if fields.get(name) is not None), None)
    if given is None:
        fields[names[-1]] = OPEN
    if isinstance(given, int | None):
        add_annotation(fields, f"{ANNOTATION}{OPEN if given is None else given}")


def add_annotation(fields: dict[str, Any], annotation: str) -> None:
    """Have the text travel with the request, to the worker. What is malformed is left to the frontend."""
    extension = fields.setdefault("nvext", {})
    if isinstance(extension, dict) and isinstance(given := extension.get("annotations") or [], list):
        extension["annotations"] = [*given, annotation]


def undo(body: Mapping[str, Any]) -> tuple[Mapping[str, Any], tuple[TokenId, ...]]:
    """What the client asked for, and what it has got. Requests for several choices never come here again."""
    first = _noted(body.get("annotations") or ())
    stops = body.get("stop_conditions") or {}
    left = stops.get("max_tokens")
    if first is None or left is None:
        return body, ()
    tokens, num_emitted = body["token_ids"], first - left
    if not 0 <= num_emitted < len(tokens):
        return body, ()
    num_prompt = len(tokens) - num_emitted
    asked = {**stops, "max_tokens": None if first == OPEN else first}
    original = {**body, "token_ids": tokens[:num_prompt], "stop_conditions": asked}
    return original, tuple(tokens[num_prompt:])


def _noted(annotations: Sequence[str]) -> int | None:
    """What max_tokens was at first. The gateway writes last."""
    for annotation in reversed(annotations):
        if annotation.startswith(ANNOTATION):
            number = annotation.removeprefix(ANNOTATION)
            return int(number) if number.isdecimal() else None
    return None
