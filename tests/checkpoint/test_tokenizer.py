"""Text to tokens and back, and chats to prompts."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rackscale.checkpoint import Tokenizer
from rackscale.core import SpecError, TokenId

PLAIN = (
    "{{ bos_token }}{% for message in messages %}[{{ message.role }}] {{ message.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)
PARTS = (
    "{% for message in messages %}{% if message.content is string %}{{ message.content }}{% else %}"
    "{% for part in message.content %}{{ part.text }}|{% endfor %}{% endif %}{% endfor %}"
)
STRICT = "{% if messages[0].role != 'user' %}{{ raise_exception('the user goes first') }}{% endif %}ok"
CHAT = [{"role": "user", "content": "hello"}]

START, END = TokenId(0), TokenId(1)

Make = Callable[..., Tokenizer]


@pytest.fixture
def make(tmp_path: Path, tiny_tokenizer: Path) -> Make:
    """A tokenizer with these templates, and this tokenizer_config.json."""
    shutil.copy(tiny_tokenizer, tmp_path / "tokenizer.json")

    def tokenizer(template: object = None, *, file: str | None = None, **config: Any) -> Tokenizer:
        side = {"bos_token": "<s>", "eos_token": {"content": "</s>"}, "chat_template": template, **config}
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(side))
        if file is not None:
            (tmp_path / "chat_template.jinja").write_text(file, encoding="utf-8")
        return Tokenizer(tmp_path)

    return tokenizer


@pytest.fixture(scope="module")
def plain(tiny_tokenizer: Path) -> Tokenizer:
    return Tokenizer(tiny_tokenizer.parent)


@given(text=st.text(st.characters(exclude_categories=["Cs"]), max_size=30))
def test_text_comes_back(plain: Tokenizer, text: str) -> None:
    assert plain.decode(plain.encode(text), skip_special_tokens=False) == text


def test_merges_and_specials(plain: Tokenizer) -> None:
    assert len(plain.encode("hello")) == 1
    assert plain.encode("<s></s>") == [START, END]
    assert plain.decode([START, *plain.encode("hello"), END]) == "hello"
    assert plain.decode([START, *plain.encode("hello")], skip_special_tokens=False) == "<s>hello"
    assert plain.vocab_size == 3 + 256 + 4


def test_half_a_surrogate_pair_is_refused(plain: Tokenizer) -> None:
    with pytest.raises(SpecError, match="surrogate"):
        plain.encode("a\ud800b")


def test_a_template_in_the_config(make: Make) -> None:
    tokenizer = make(PLAIN)
    assert tokenizer.render_chat(CHAT) == "<s>[user] hello\n[assistant]"
    assert tokenizer.render_chat(CHAT, add_generation_prompt=False) == "<s>[user] hello\n"


def test_special_tokens_may_be_objects(make: Make) -> None:
    assert make("{{ bos_token }}{{ eos_token }}{{ pad_token }}").render_chat(CHAT) == "<s></s>"


def test_content_may_be_a_list_of_parts(make: Make) -> None:
    tokenizer = make(PARTS)
    parts = [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]
    assert tokenizer.render_chat([{"role": "user", "content": parts}]) == "one|two|"
    assert tokenizer.render_chat(CHAT) == "hello"


def test_a_list_of_templates_has_a_default(make: Make) -> None:
    named = [{"name": "tool_use", "template": "tools"}, {"name": "default", "template": "the default"}]
    assert make(named).render_chat(CHAT) == "the default"


def test_the_jinja_file_goes_first(make: Make) -> None:
    assert make("old", file="né: {{ messages[0].content }}").render_chat(CHAT) == "né: hello"


@pytest.mark.parametrize("template", [None, 3, [], [{"name": "tool_use", "template": "x"}], [3, {}]])
def test_no_template(make: Make, template: object) -> None:
    with pytest.raises(SpecError, match="has no chat template"):
        make(template).render_chat(CHAT)


def test_a_template_that_refuses_says_why(make: Make) -> None:
    assert make(STRICT).render_chat(CHAT) == "ok"
    with pytest.raises(SpecError, match="the user goes first"):
        make(STRICT).render_chat([{"role": "assistant", "content": "hello"}])


@pytest.mark.parametrize(
    "template",
    [
        "{% if %}",
        "{{ 1 / 0 }}",
        "{{ messages[5].content }}",
        "{{ messages + 1 }}",
        "{{ messages.pop() }}",
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{% for i in range(999999999) %}x{% endfor %}",
        "{{ strftime_now(3) }}",
    ],
)
def test_a_template_that_fails_is_an_error_of_ours(make: Make, template: str) -> None:
    with pytest.raises(SpecError, match="chat template of"):
        make(template).render_chat(CHAT)


def test_what_templates_are_given(make: Make) -> None:
    """As transformers gives it: no tools is None, tojson keeps letters, loops can break."""
    tokenizer = make(
        "{{ tools is none }} {{ documents is none }} {{ {'é': messages[0].content}|tojson }}"
        "{% for i in range(9) %}{% if i == 2 %}{% break %}{% endif %} {{ i }}{% endfor %}"
    )
    assert tokenizer.render_chat(CHAT) == 'True True {"é": "hello"} 0 1'


def test_the_date_is_to_be_had(make: Make) -> None:
    assert make("{{ strftime_now('%Y') }}").render_chat(CHAT).isdigit()
