"""Whatever the logits, what comes out belongs to the guide's language."""

import json
import re
import string
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer

from rackscale.core import Guide, GuideKind, SpecError, TokenId, column
from rackscale.runtime.sampling import JSON_OBJECT, Sampler, check_guide
from rackscale.runtime.sampling.guides import GuideCompiler

END = 0
Make = Callable[..., Any]
NASTY = [
    'a"b',
    "x\\y",
    "(.*)",
    "new\nline",
    "é☃😀",
    "\x00\x01",
    "a/b",
    "tab\t",
    "| ",
    "$^",
    "[",
    "yes",
    "yesterday",
]

PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 6},
        "age": {"type": "integer", "minimum": 0, "maximum": 120},
        "tags": {"type": "array", "items": {"enum": ["a", "b"]}, "maxItems": 3},
        "alive": {"type": "boolean"},
    },
    "required": ["name", "age", "tags", "alive"],
    "additionalProperties": False,
}
TREE = {
    "$defs": {
        "node": {
            "type": "object",
            "properties": {
                "value": {"enum": [1, 2]},
                "next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]},
            },
            "required": ["value", "next"],
            "additionalProperties": False,
        }
    },
    "$ref": "#/$defs/node",
}
ARITHMETIC = 'start: term ("+" term)*\nterm: DIGIT | "(" start ")"\nDIGIT: /[0-9]/\n'


def is_person(value: Any) -> bool:
    return (
        set(value) == {"name", "age", "tags", "alive"}
        and isinstance(value["name"], str)
        and len(value["name"]) <= 6
        and type(value["age"]) is int
        and 0 <= value["age"] <= 120
        and len(value["tags"]) <= 3
        and set(value["tags"]) <= {"a", "b"}
        and isinstance(value["alive"], bool)
    )


def is_node(value: Any) -> bool:
    return value is None or (
        set(value) == {"value", "next"} and value["value"] in (1, 2) and is_node(value["next"])
    )


def is_sum(text: str) -> bool:
    return bool(re.fullmatch(r"[0-9+()]+", text)) and isinstance(eval(text), int)


LANGUAGES: dict[str, tuple[GuideKind, str, Callable[[str], bool]]] = {
    "person": (GuideKind.JSON_SCHEMA, json.dumps(PERSON), lambda text: is_person(json.loads(text))),
    "tree": (GuideKind.JSON_SCHEMA, json.dumps(TREE), lambda text: is_node(json.loads(text))),
    "regex": (
        GuideKind.REGEX,
        r"[A-Z][a-z]{1,5}( \d{2})?",
        lambda t: bool(re.fullmatch(r"[A-Z][a-z]{1,5}( \d{2})?", t)),
    ),
    "choice": (GuideKind.CHOICE, json.dumps(NASTY), lambda text: text in NASTY),
    "grammar": (GuideKind.GRAMMAR, ARITHMETIC, is_sum),
}
SETTINGS: tuple[dict[str, Any], ...] = (
    {},
    {"temperature": 0.0, "num_logprobs": 2},
    {"top_p": 0.7, "top_k": 40},
    {"frequency_penalty": 1.0, "repetition_penalty": 1.2, "logit_bias": {TokenId(40): 4.0}},
)


def run(sampler: Sampler, row: int, request: Any, *, seed: int, steps: int = 400) -> list[int]:
    """The request's output under random logits, its stop token included. A pull towards closing keeps
    what the language leaves open from growing for ever."""
    generator = torch.Generator().manual_seed(seed)
    sampler.seat(row, request)
    tokens: list[int] = []
    while END not in tokens and len(tokens) < steps:
        logits = torch.randn(1, 320, generator=generator) * 3
        logits[0, END] += len(tokens) / 2
        drawn, _ = sampler.sample(logits, column([row]), column([3 + len(tokens)]))
        tokens.append(int(drawn[0]))
    return tokens


@pytest.mark.parametrize("settings", SETTINGS, ids=["plain", "greedy", "filtered", "penalised"])
@pytest.mark.parametrize("name", LANGUAGES)
def test_random_logits_give_words_of_the_language(
    name: str,
    settings: dict[str, Any],
    make_sampler: Make,
    make_request: Make,
    tokenizer: Tokenizer,
    tokenizer_path: Path,
) -> None:
    kind, source, belongs = LANGUAGES[name]
    guide = Guide(kind=kind, source=source)
    check_guide(guide, tokenizer_path)
    sampler = make_sampler()
    texts = set()
    for seed in range(12):
        tokens = run(sampler, seed % 3, make_request(seed=seed, guide=guide, **settings), seed=seed)
        assert tokens[-1] == END
        texts.add(tokenizer.decode(tokens[:-1], skip_special_tokens=False))
    assert all(belongs(text) for text in texts), texts
    assert len(texts) > 4


def test_between_json_tokens_is_a_space_at_most(
    make_sampler: Make, make_request: Make, tokenizer: Tokenizer
) -> None:
    """A model that tends to white space does not go on with it for ever."""
    bias = {TokenId(tokenizer.token_to_id(token)): 100.0 for token in ("Ċ", "Ġ")}
    bias[TokenId(tokenizer.token_to_id("{"))] = 90.0
    request = make_request(guide=JSON_OBJECT, logit_bias=bias)
    tokens = run(make_sampler(), 0, request, seed=0, steps=80)
    text = tokenizer.decode([token for token in tokens if token != END])
    assert re.match(r'\{ ["}]', text)


def test_choices_are_all_reachable_and_exact(
    make_sampler: Make, make_request: Make, tokenizer: Tokenizer
) -> None:
    guide = Guide(kind=GuideKind.CHOICE, source=json.dumps(NASTY))
    sampler = make_sampler()
    for choice in NASTY:
        wanted = [*tokenizer.encode(choice).ids, END]
        sampler.seat(0, make_request(temperature=0.0, guide=guide))
        for i, token in enumerate(wanted):
            logits = torch.zeros(1, 320)
            logits[0, token] = 1.0
            drawn, _ = sampler.sample(logits, column([0]), column([3 + i]))
            assert int(drawn[0]) == token


def test_after_its_end_a_row_gives_only_stop_tokens(
    make_sampler: Make, make_request: Make, tokenizer: Tokenizer
) -> None:
    """A step already planned when the row ended samples it once more; its answer is ignored."""
    sampler = make_sampler()
    request = make_request(stops=(1, 77), guide=Guide(kind=GuideKind.CHOICE, source='["no"]'))
    sampler.seat(0, request)
    logits = torch.zeros(1, 320)
    text = []
    for i in range(8):
        drawn, _ = sampler.sample(logits, column([0]), column([3 + i]))
        text.append(int(drawn[0]))
    ends = [token for token in text if token in (1, 77)]
    body = text[: len(text) - len(ends)]
    assert tokenizer.decode(body) == "no"
    assert text == body + ends
    assert ends


def test_a_stop_token_waits_for_the_language(
    make_sampler: Make, make_request: Make, tokenizer: Tokenizer
) -> None:
    """Also one that is ordinary text: the output belongs to the language, or is not finished."""
    letter = TokenId(tokenizer.token_to_id("b"))
    sampler = make_sampler()
    sampler.seat(
        0, make_request(stops=(letter,), temperature=0.0, guide=Guide(kind=GuideKind.REGEX, source="(b|c)c"))
    )
    logits = torch.zeros(1, 320)
    logits[0, letter] = 5.0
    drawn = [int(sampler.sample(logits, column([0]), column([3 + i]))[0][0]) for i in range(3)]
    assert tokenizer.decode(drawn[:2]) == "cc"
    assert drawn[2] == letter


def test_without_stop_tokens_the_tokenizers_own_end_comes(make_sampler: Make, make_request: Make) -> None:
    sampler = make_sampler()
    request = make_request(stops=(), guide=Guide(kind=GuideKind.CHOICE, source='["a"]'))
    sampler.seat(0, request)
    drawn = [int(sampler.sample(torch.zeros(1, 320), column([0]), column([3 + i]))[0][0]) for i in range(3)]
    assert drawn[1:] == [END, END]


def test_a_dead_end_ends_the_row(make_sampler: Make, make_request: Make) -> None:
    """min_tokens forbids the end, the guide everything else: the guide's word is kept."""
    sampler = make_sampler()
    request = make_request(min_tokens=9, guide=Guide(kind=GuideKind.CHOICE, source='["a"]'))
    sampler.seat(0, request)
    drawn = [int(sampler.sample(torch.zeros(1, 320), column([0]), column([3 + i]))[0][0]) for i in range(2)]
    assert drawn[1] == END


def test_min_tokens_keep_an_open_language_going(make_sampler: Make, make_request: Make) -> None:
    sampler = make_sampler()
    sampler.seat(
        0, make_request(min_tokens=9, temperature=0.0, guide=Guide(kind=GuideKind.REGEX, source="a*"))
    )
    logits = torch.zeros(1, 320)
    logits[0, END] = 9.0
    drawn = [int(sampler.sample(logits, column([0]), column([3 + i]))[0][0]) for i in range(10)]
    assert END not in drawn[:9]
    assert drawn[9] == END


@pytest.mark.parametrize(("kind", "source"), [(GuideKind.REGEX, "(a"), (GuideKind.CHOICE, "[]")])
def test_a_guide_that_nobody_checked_ends_its_row(
    kind: GuideKind, source: str, make_sampler: Make, make_request: Make
) -> None:
    sampler = make_sampler()
    sampler.seat(0, make_request(guide=Guide(kind=kind, source=source)))
    sampler.seat(1, make_request(guide=Guide(kind=GuideKind.REGEX, source="a+")))
    tokens, _ = sampler.sample(torch.zeros(2, 320), column([0, 1]), column([3, 3]))
    assert int(tokens[0]) == END
    assert int(tokens[1]) != END


def test_an_end_token_of_any_name_serves(tokenizer_path: Path, tmp_path: Path, make_request: Make) -> None:
    """And the token whose place a guess would have taken stays ordinary text."""
    content = json.loads(tokenizer_path.read_text())
    vocab = content["model"]["vocab"]
    vocab["<finis>"], vocab["!"] = vocab["!"], 0
    del vocab["<|endoftext|>"]
    content["added_tokens"][0] |= {"id": vocab["<finis>"], "content": "<finis>"}
    odd = tmp_path / "tokenizer.json"
    odd.write_text(json.dumps(content))
    sampler = Sampler(vocab_size=320, max_running=1, tokenizer_path=odd)
    end = vocab["<finis>"]
    sampler.seat(0, make_request(stops=(end,), guide=Guide(kind=GuideKind.REGEX, source="!!")))
    drawn = [int(sampler.sample(torch.zeros(1, 320), column([0]), column([3 + i]))[0][0]) for i in range(3)]
    assert drawn == [0, 0, end]


def test_a_tokenizer_wider_than_the_model(make_request: Make, tokenizer_path: Path) -> None:
    sampler = Sampler(vocab_size=200, max_running=1, tokenizer_path=tokenizer_path)
    sampler.seat(0, make_request(guide=Guide(kind=GuideKind.REGEX, source="[0-9]{3}")))
    for i in range(3):
        drawn, _ = sampler.sample(torch.zeros(1, 200), column([0]), column([3 + i]))
        assert 0 < int(drawn[0]) < 200


def test_ids_without_text_are_never_allowed(tokenizer_path: Path, tokenizer: Tokenizer) -> None:
    compiler = GuideCompiler(tokenizer_path, vocab_size=320)
    row = compiler.start(Guide(kind=GuideKind.REGEX, source="(.|\n)*"), (TokenId(END),), ())
    bits = row.allowed_bits()
    allowed = [token for token in range(320) if bits[token >> 3] >> (token & 7) & 1]
    assert END in allowed
    assert max(allowed) < tokenizer.get_vocab_size() < 320
    assert TokenId(1) not in allowed  # a special token that is not this request's stop token


def test_compiled_guides_are_kept_and_the_oldest_let_go(tokenizer_path: Path) -> None:
    compiler = GuideCompiler(tokenizer_path, vocab_size=320)
    for number in range(200):
        guide = Guide(kind=GuideKind.REGEX, source=f"a{{{number}}}b")
        assert compiler.start(guide, (), ()).allowed_bits().any()
    assert compiler.num_compiled == 128


def test_without_a_tokenizer_a_guide_is_refused(make_request: Make) -> None:
    sampler = Sampler(vocab_size=320, max_running=1)
    with pytest.raises(SpecError, match="needs a tokenizer"):
        sampler.seat(0, make_request(guide=JSON_OBJECT))


@pytest.mark.parametrize(
    ("kind", "source", "says"),
    [
        (GuideKind.REGEX, "(a", "unclosed group"),
        (GuideKind.REGEX, r"(?=a)b", "look-around"),
        (GuideKind.REGEX, "a" * 100_001, "over 100000 bytes"),
        (GuideKind.REGEX, "☃" * 40_000, "over 100000 bytes"),
        (GuideKind.GRAMMAR, "start: missing", "unknown name"),
        (GuideKind.GRAMMAR, "start: start", "cannot be followed"),
        (GuideKind.CHOICE, "[]", "nothing to choose from"),
        (GuideKind.CHOICE, '["a", 1]', "JSON list of strings"),
        (GuideKind.CHOICE, '["a"', "JSON list of strings"),
        (GuideKind.CHOICE, '["\\ud800"]', "JSON list of strings"),
        (GuideKind.JSON_SCHEMA, '{"type": "strin"}', "Invalid type"),
        (GuideKind.JSON_SCHEMA, '{"type": "array", "uniqueItems": true}', "uniqueItems"),
        (GuideKind.JSON_SCHEMA, '{"$ref": "http://localhost/schema"}', "registry"),
        (GuideKind.JSON_SCHEMA, "[1]", "JSON object"),
        (GuideKind.JSON_SCHEMA, '{"a": NaN}', "JSON object"),
        (GuideKind.JSON_SCHEMA, '{} }], "grammars": [{', "JSON object"),
        (GuideKind.JSON_SCHEMA, '{"a":' + "[" * 70 + "]" * 70 + "}", "nested more than 64"),
        (GuideKind.JSON_SCHEMA, '{"a":' + "[" * 30_000 + "]" * 30_000 + "}", "JSON"),
        (
            GuideKind.JSON_SCHEMA,
            json.dumps({"type": "object", "properties": {f"p{i}": {"type": "string"} for i in range(2000)}}),
            "max is 2000",
        ),
    ],
)
def test_what_cannot_be_followed_is_refused(
    kind: GuideKind, source: str, says: str, tokenizer_path: Path
) -> None:
    with pytest.raises(SpecError) as refused:
        check_guide(Guide(kind=kind, source=source), tokenizer_path)
    assert says in str(refused.value)
    assert refused.value.hint


def test_a_check_without_a_tokenizer_reads_the_source_alone() -> None:
    check_guide(JSON_OBJECT)
    check_guide(Guide(kind=GuideKind.CHOICE, source=json.dumps([*string.printable, ""])))
    with pytest.raises(SpecError, match="unclosed group"):
        check_guide(Guide(kind=GuideKind.REGEX, source="(a"))


def test_a_tokenizer_that_is_none_is_named(tmp_path: Path) -> None:
    broken = tmp_path / "tokenizer.json"
    broken.write_text("{}")
    with pytest.raises(SpecError, match=r"tokenizer\.json"):
        check_guide(JSON_OBJECT, broken)
