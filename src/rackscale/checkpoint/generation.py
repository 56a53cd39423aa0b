"""generation_config.json: how the model's makers want it sampled, and what ends its output."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from rackscale.checkpoint.fields import Fields
from rackscale.checkpoint.shards import read_json
from rackscale.core import Sampling, SpecError, TokenId

N = TypeVar("N", int, float)


@dataclass(frozen=True, kw_only=True, slots=True)
class GenerationDefaults:
    """None: not said. do_sample is transformers' switch: without it temperature and the rest are void."""

    eos_token_ids: tuple[TokenId, ...]
    bos_token_id: TokenId | None = None
    do_sample: bool = False
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    repetition_penalty: float | None = None

    def sampling(self) -> Sampling:
        """What the file asks for: greedy unless it says do_sample."""
        if not self.do_sample:
            return Sampling(temperature=0.0, repetition_penalty=self.repetition_penalty or 1.0)
        return Sampling(
            temperature=1.0 if self.temperature is None else self.temperature,
            top_k=self.top_k or 0,
            top_p=1.0 if self.top_p is None else self.top_p,
            repetition_penalty=self.repetition_penalty or 1.0,
        )


def read_generation(folder: Path, config: Fields) -> GenerationDefaults:
    """From generation_config.json, and from config.json where that is absent or silent."""
    path = folder / "generation_config.json"
    fields = Fields(read_json(path), path) if path.exists() else Fields({}, path)
    eos = _token_ids(fields, "eos_token_id") or _token_ids(config, "eos_token_id")
    bos = _token_ids(fields, "bos_token_id") or _token_ids(config, "bos_token_id")
    return GenerationDefaults(
        eos_token_ids=eos,
        bos_token_id=bos[0] if bos else None,
        do_sample=fields.get("do_sample", bool, default=False),
        temperature=_number(fields, "temperature", float, lambda value: value >= 0),
        top_k=_number(fields, "top_k", int, lambda value: value >= 0),
        top_p=_number(fields, "top_p", float, lambda value: 0 < value <= 1),
        repetition_penalty=_number(fields, "repetition_penalty", float, lambda value: value > 0),
    )


def _number(fields: Fields, name: str, kind: type[N], allowed: Callable[[N], bool]) -> N | None:
    value = fields.optional(name, kind)
    if value is not None and not allowed(value):
        raise SpecError(f"{name} in {fields.path} is {value}", hint="it is out of its range; correct it")
    return value


def _token_ids(fields: Fields, name: str) -> tuple[TokenId, ...]:
    value = fields.values.get(name)
    ids = [] if value is None else value if isinstance(value, list) else [value]
    if not all(type(token) is int and token >= 0 for token in ids):
        raise SpecError(f"{name} in {fields.path} is {value!r}", hint="it must be a token id or a list")
    return tuple(map(TokenId, ids))
