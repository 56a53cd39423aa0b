"""From what Dynamo's frontend hands to a worker to `Request`s: every field checked, nothing ignored.

The frontend has made tokens of the text already, and has checked what it knows. It does not hand on some
fields of the OpenAI API; the gateway puts those into an annotation (`Extras`).
"""

import json
import secrets
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import Annotated, Any

from msgspec import DecodeError, Meta, Struct, ValidationError
from msgspec import json as msgspec_json

from rackscale.checkpoint import GenerationDefaults
from rackscale.core import Guide, GuideKind, Request, RequestId, Sampling, SpecError, TokenId
from rackscale.runtime.sampling import validate_sampling

ANNOTATION = "rackscale:"
MAX_CHOICES = 128
MAX_STOPS = 64  # each takes a place in every row of the control plane
MAX_PRIORITY = 1_000_000
UNSUPPORTED = {
    "use_beam_search": "beam search is not done; leave it out",
    "length_penalty": "it belongs to beam search, which is not done; leave it out",
}


class Extras(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Fields of a request that the frontend drops."""

    logit_bias: dict[TokenId, float] = {}
    stop_token_ids: tuple[TokenId, ...] = ()
    priority: Annotated[int, Meta(ge=-MAX_PRIORITY, le=MAX_PRIORITY)] = 0

    def annotation(self) -> str:
        """The text that travels with the request."""
        return ANNOTATION + msgspec_json.encode(self).decode()


def translate(
    body: Mapping[str, Any],
    request_id: str,
    *,
    defaults: GenerationDefaults,
    vocab_size: int,
    max_model_len: int,
) -> tuple[Request, ...]:
    """One `Request` for each choice. Raises SpecError with a sentence that says what to change."""
    prompt = tuple(body["token_ids"])
    _check_tokens("the prompt", prompt, vocab_size)
    stops = body.get("stop_conditions") or {}
    options = body.get("sampling_options") or {}
    output = body.get("output_options") or {}
    _refuse_unsupported(options, output)
    extras = _extras(body.get("annotations") or ())
    sampling = _sampling(options, output, extras, defaults)
    validate_sampling(sampling, vocab_size=vocab_size)
    max_tokens, min_tokens = _lengths(stops, len(prompt), max_model_len)
    ends = () if stops.get("ignore_eos") else defaults.eos_token_ids
    given = (*(stops.get("stop_token_ids") or ()), *extras.stop_token_ids)
    _check_tokens("stop_token_ids", given, vocab_size)
    if len(given) > MAX_STOPS:
        raise SpecError(f"stop_token_ids has {len(given)} tokens", hint=f"give at most {MAX_STOPS}")
    num_choices = options.get("n") or 1
    if not 1 <= num_choices <= MAX_CHOICES:
        raise SpecError(f"n is {num_choices}", hint=f"give 1 to {MAX_CHOICES}")
    leader = RequestId(f"{request_id}.0")
    return tuple(
        Request(
            id=RequestId(f"{request_id}.{index}"),
            prompt=prompt,
            max_tokens=max_tokens,
            min_tokens=min_tokens,
            stop_token_ids=tuple(dict.fromkeys((*ends, *given))),
            sampling=_for_choice(sampling, index),
            priority=extras.priority,
            sibling_of=leader if index else None,
        )
        for index in range(num_choices)
    )


def _check_tokens(where: str, tokens: Sequence[TokenId], vocab_size: int) -> None:
    for token in tokens:
        if not 0 <= token < vocab_size:
            raise SpecError(f"token {token} of {where}", hint=f"the vocabulary is 0 to {vocab_size - 1}")


def _refuse_unsupported(options: Mapping[str, Any], output: Mapping[str, Any]) -> None:
    for name, hint in UNSUPPORTED.items():
        if options.get(name):
            raise SpecError(f"{name} is not supported", hint=hint)
    if output.get("prompt_logprobs") is not None:
        raise SpecError("echo and prompt_logprobs are not supported", hint="leave them out")
    if options.get("best_of") not in {None, options.get("n") or 1}:
        raise SpecError("best_of is not supported", hint="use n, and choose yourself")


def _extras(annotations: Sequence[str]) -> Extras:
    for annotation in annotations:
        if annotation.startswith(ANNOTATION):
            try:
                return msgspec_json.decode(annotation[len(ANNOTATION) :], type=Extras)
            except (DecodeError, ValidationError) as error:
                raise SpecError(
                    f"logit_bias, stop_token_ids or priority: {error}", hint="correct it"
                ) from None
    return Extras()


def _sampling(
    options: Mapping[str, Any], output: Mapping[str, Any], extras: Extras, defaults: GenerationDefaults
) -> Sampling:
    """What the client says; where it says nothing, the checkpoint; then the OpenAI API's defaults."""
    told = defaults if defaults.do_sample else GenerationDefaults(eos_token_ids=())

    def first(*values: Any) -> Any:
        return next((value for value in values if value is not None), None)

    seed = options.get("seed")
    return Sampling(
        temperature=first(options.get("temperature"), told.temperature, 1.0),
        top_k=first(options.get("top_k"), told.top_k, 0),
        top_p=first(options.get("top_p"), told.top_p, 1.0),
        min_p=first(options.get("min_p"), 0.0),
        presence_penalty=first(options.get("presence_penalty"), 0.0),
        frequency_penalty=first(options.get("frequency_penalty"), 0.0),
        repetition_penalty=first(options.get("repetition_penalty"), defaults.repetition_penalty, 1.0),
        logit_bias=extras.logit_bias,
        seed=secrets.randbits(63) if seed is None else seed,
        num_logprobs=output.get("logprobs"),
        guide=_guide(options.get("guided_decoding")),
    )


def _guide(guided: Mapping[str, Any] | None) -> Guide | None:
    kinds = {
        "json": GuideKind.JSON_SCHEMA,
        "regex": GuideKind.REGEX,
        "choice": GuideKind.CHOICE,
        "grammar": GuideKind.GRAMMAR,
    }
    given = {name: value for name, value in (guided or {}).items() if value is not None}
    unknown = set(given) - set(kinds)
    if unknown or len(given) > 1:
        raise SpecError(
            f"structured output by {', '.join(sorted(given))}",
            hint=f"give one of {', '.join(f'guided_{name}' for name in kinds)}",
        )
    for name, value in given.items():
        source = value if isinstance(value, str) and name != "choice" else json.dumps(value)
        return Guide(kind=kinds[name], source=source)
    return None


def _lengths(stops: Mapping[str, Any], num_prompt: int, max_model_len: int) -> tuple[int, int]:
    room = max_model_len - num_prompt
    if room < 1:
        raise SpecError(
            f"the prompt has {num_prompt} tokens, and the context holds {max_model_len} with the output",
            hint=f"shorten it to at most {max_model_len - 1} tokens",
        )
    max_tokens = stops.get("max_tokens")
    if max_tokens is not None and not 1 <= max_tokens <= room:
        raise SpecError(
            f"max_tokens is {max_tokens}, and the prompt of {num_prompt} tokens leaves room for {room}",
            hint=f"give 1 to {room}",
        )
    max_tokens = room if max_tokens is None else max_tokens
    min_tokens = stops.get("min_tokens") or 0
    if not 0 <= min_tokens <= max_tokens:
        raise SpecError(f"min_tokens is {min_tokens}", hint=f"give 0 to max_tokens, here {max_tokens}")
    return max_tokens, min_tokens


def _for_choice(sampling: Sampling, index: int) -> Sampling:
    """The same with a seed of its own. The first choice has the client's seed, so that n=1 and the first
    of n agree."""
    if index == 0:
        return sampling
    digest = blake2b(f"{sampling.seed}:{index}".encode(), digest_size=8).digest()
    fields = {name: getattr(sampling, name) for name in sampling.__struct_fields__}
    return Sampling(**{**fields, "seed": int.from_bytes(digest, "little", signed=True)})
