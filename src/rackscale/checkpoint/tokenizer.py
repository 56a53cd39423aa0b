"""Text to tokens and back, and a chat to a prompt."""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn

import tokenizers
from jinja2.exceptions import TemplateError
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

from rackscale.checkpoint.shards import read_json
from rackscale.core import SpecError, TokenId

FILE = "tokenizer.json"
SPECIAL_TOKENS = ("bos_token", "eos_token", "unk_token", "pad_token")


class Tokenizer:
    """A folder's tokenizer.json and what tokenizer_config.json says beside it."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE
        try:
            self._tokenizer = tokenizers.Tokenizer.from_file(str(self.path))
        except Exception as error:  # noqa: BLE001 (the library raises bare Exception)
            raise SpecError(
                f"{self.path} is no tokenizer ({error})", hint="it is damaged; download it again"
            ) from None
        side = folder / "tokenizer_config.json"
        self._config = read_json(side) if side.exists() else {}
        template = folder / "chat_template.jinja"
        self._template = _read_text(template) if template.exists() else self._inline_template()

    @property
    def vocab_size(self) -> int:
        """Tokens, added ones included."""
        return int(self._tokenizer.get_vocab_size())

    def encode(self, text: str, *, add_special_tokens: bool = False) -> list[TokenId]:
        """Token ids. Raises SpecError where the text has halves of a surrogate pair."""
        if any("\ud800" <= character <= "\udfff" for character in text):
            raise SpecError("the text has half a surrogate pair", hint="give text that UTF-8 can carry")
        return list(map(TokenId, self._tokenizer.encode(text, add_special_tokens=add_special_tokens).ids))

    def decode(self, ids: Sequence[TokenId], *, skip_special_tokens: bool = True) -> str:
        """Text."""
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=skip_special_tokens))

    def render_chat(
        self, messages: Sequence[Mapping[str, Any]], *, add_generation_prompt: bool = True
    ) -> str:
        """The prompt of a chat, by the folder's template.

        Raises SpecError where there is none, or where the template refuses the messages.
        """
        if self._template is None:
            raise SpecError(f"{self.path.parent} has no chat template", hint="give a prompt, not messages")
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols]
        )
        environment.filters["tojson"] = lambda value, **kwargs: json.dumps(
            value, ensure_ascii=False, **kwargs
        )
        environment.globals["raise_exception"] = _refuse
        environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)  # noqa: DTZ005 (local time)
        specials = {name: self._special(name) for name in SPECIAL_TOKENS}
        try:
            return environment.from_string(self._template).render(
                messages=messages,
                add_generation_prompt=add_generation_prompt,
                # None, as transformers gives them: templates ask whether they are none.
                tools=None,
                documents=None,
                **specials,
            )
        except Exception as error:  # noqa: BLE001 (a template is a program, and may raise anything)
            raise SpecError(
                f"the chat template of {self.path.parent} refuses the messages ({error})",
                hint="change the messages, or give a prompt",
            ) from None

    def _special(self, name: str) -> str:
        value = self._config.get(name)
        if isinstance(value, dict):
            value = value.get("content")
        return value if isinstance(value, str) else ""

    def _inline_template(self) -> str | None:
        value = self._config.get("chat_template")
        if isinstance(value, list):
            named = [item for item in value if isinstance(item, dict) and item.get("name") == "default"]
            value = named[0].get("template") if named else None
        return value if isinstance(value, str) else None


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise SpecError(f"{path} cannot be read ({error})", hint="download it again") from None


def _refuse(message: str) -> NoReturn:
    raise TemplateError(message)


def read_tokenizer(folder: Path, *, required: bool) -> Tokenizer | None:
    """The folder's tokenizer. Raises SpecError where there is none and one is required."""
    if (folder / FILE).exists():
        return Tokenizer(folder)
    if required:
        raise SpecError(f"{folder} has no {FILE}", hint="download it, or give token ids instead of text")
    return None
