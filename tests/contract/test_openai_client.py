"""The `openai` client against the running server: what works with OpenAI's own works here."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import openai
import pytest
from live_server import NAME, LiveServer
from openai.types.chat import ChatCompletionMessageParam
from tokenizers import Tokenizer

PROMPT = "It is a truth universally acknowledged, that a single man in possession of a good fortune,"
MESSAGES: list[ChatCompletionMessageParam] = [{"role": "user", "content": PROMPT}]
NUM_TOGETHER = 32
SCHEMA = {
    "type": "object",
    "properties": {"name": {"enum": ["Emma", "Anne"]}, "married": {"type": "boolean"}},
    "required": ["name", "married"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def token_of(bundled_model: Path) -> Callable[[str], int]:
    return Tokenizer.from_file(str(bundled_model / "tokenizer.json")).token_to_id


@pytest.fixture(scope="module")
def vocab_size(bundled_model: Path) -> int:
    return json.loads((bundled_model / "config.json").read_text())["vocab_size"]


@pytest.fixture(scope="module")
def client(server: LiveServer) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=server.url, api_key="none", max_retries=0, timeout=30) as client:
        yield client


@asynccontextmanager
async def async_client(server: LiveServer) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=server.url, api_key="none", max_retries=0, timeout=60) as client:
        yield client


def complete(client, **fields):
    return client.completions.create(**{"model": NAME, "prompt": PROMPT, "max_tokens": 8, **fields})


def chat(client, **fields):
    return client.chat.completions.create(**{"model": NAME, "messages": MESSAGES, "max_tokens": 8, **fields})


def test_models(client):
    assert [model.id for model in client.models.list()] == [NAME]


def test_completion(client):
    answer = complete(client, temperature=0)
    (choice,) = answer.choices
    assert choice.text
    assert choice.finish_reason == "length"
    assert answer.usage.completion_tokens == 8
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + 8


def test_chat(client):
    answer = chat(client, temperature=0)
    (choice,) = answer.choices
    assert choice.message.role == "assistant"
    assert choice.message.content
    assert choice.finish_reason == "length"
    assert answer.usage.completion_tokens == 8


def test_a_prompt_in_tokens_is_the_prompt_in_text(client):
    answer = complete(client, prompt=[5, 6, 7], temperature=0)
    assert answer.usage.prompt_tokens == 3
    assert complete(client, prompt=[[5, 6, 7]], temperature=0).choices[0].text == answer.choices[0].text


def test_every_answer_is_whole(client):
    for seed in range(50):
        answer = complete(client, max_tokens=5, seed=seed, prompt="It")
        assert answer.choices[0].finish_reason in {"length", "stop"}
        assert answer.usage is not None


def test_the_parts_of_a_streamed_completion_are_the_whole(client):
    whole = complete(client, temperature=0, max_tokens=24)
    options = {"include_usage": True}
    *parts, last = complete(client, temperature=0, max_tokens=24, stream=True, stream_options=options)
    assert len(parts) > 1
    assert "".join(part.choices[0].text for part in parts) == whole.choices[0].text
    assert parts[-1].choices[0].finish_reason == "length"
    assert last.choices == []
    assert last.usage.completion_tokens == 24
    assert last.usage.prompt_tokens == whole.usage.prompt_tokens


def test_the_parts_of_a_streamed_chat_are_the_whole(client):
    whole = chat(client, temperature=0, max_tokens=24)
    options = {"include_usage": True}
    *parts, last = chat(client, temperature=0, max_tokens=24, stream=True, stream_options=options)
    assert "".join(part.choices[0].delta.content or "" for part in parts) == whole.choices[0].message.content
    assert parts[-1].choices[0].finish_reason == "length"
    assert last.usage.completion_tokens == 24


def test_no_usage_unless_asked_for(client):
    assert all(part.usage is None for part in complete(client, stream=True))


def test_the_second_of_two_equal_prompts_is_cached(client):
    prompt = " ".join(["A prompt of this test's own."] * 10)
    first, second = (complete(client, prompt=prompt).usage for _ in range(2))
    assert first.prompt_tokens_details.cached_tokens == 0
    assert 16 <= second.prompt_tokens_details.cached_tokens < second.prompt_tokens
    assert second.prompt_tokens_details.cached_tokens % 16 == 0


def test_logprobs_of_a_completion(client):
    logprobs = complete(client, temperature=0, logprobs=3).choices[0].logprobs
    assert len(logprobs.tokens) == len(logprobs.token_logprobs) == len(logprobs.top_logprobs) == 8
    for token, logprob, top in zip(
        logprobs.tokens, logprobs.token_logprobs, logprobs.top_logprobs, strict=True
    ):
        assert logprob <= 0
        assert max(top.values()) == pytest.approx(top[token], abs=1e-5) == pytest.approx(logprob, abs=1e-5)
        assert len(top) == 3


def test_logprobs_of_a_chat(client):
    answer = chat(client, temperature=0, logprobs=True, top_logprobs=4)
    content = answer.choices[0].logprobs.content
    assert len(content) == 8
    assert "".join(entry.token for entry in content) == answer.choices[0].message.content
    for entry in content:
        assert [top.logprob for top in entry.top_logprobs] == sorted(
            (top.logprob for top in entry.top_logprobs), reverse=True
        )
        assert entry.top_logprobs[0].token == entry.token
        assert bytes(entry.bytes).decode(errors="replace") == entry.token


def test_logprobs_of_a_stream(client):
    parts = complete(client, temperature=0, logprobs=1, stream=True)
    got = [value for part in parts for value in part.choices[0].logprobs.token_logprobs]
    whole = complete(client, temperature=0, logprobs=1).choices[0].logprobs.token_logprobs
    assert got == pytest.approx(whole, abs=1e-4)


def test_two_choices(client):
    answer = chat(client, n=2, seed=11, max_tokens=24)
    assert [choice.index for choice in answer.choices] == [0, 1]
    texts = [choice.message.content for choice in answer.choices]
    assert texts[0] != texts[1]
    assert texts[0] == chat(client, seed=11, max_tokens=24).choices[0].message.content
    assert answer.usage.completion_tokens == 48


def test_two_streamed_choices(client):
    texts = {0: "", 1: ""}
    for part in complete(client, n=2, seed=11, max_tokens=24, stream=True):
        for choice in part.choices:
            texts[choice.index] += choice.text
    whole = complete(client, n=2, seed=11, max_tokens=24)
    assert texts == {choice.index: choice.text for choice in whole.choices}


def test_a_json_schema(client):
    schema = {"name": "woman", "schema": SCHEMA, "strict": True}
    answer = chat(
        client, max_tokens=200, seed=1, response_format={"type": "json_schema", "json_schema": schema}
    )
    value = json.loads(answer.choices[0].message.content)
    assert value.keys() == {"name", "married"}
    assert value["name"] in {"Emma", "Anne"}
    assert answer.choices[0].finish_reason == "stop"


def test_a_json_object(client, token_of):
    fields = {"max_tokens": 60, "seed": 3, "response_format": {"type": "json_object"}}
    closing = {str(token_of("}")): 100}  # this model's strings never end by themselves
    answer = chat(client, **fields, logit_bias=closing).choices[0]
    assert json.loads(answer.message.content) == {}
    assert answer.finish_reason == "stop"
    assert chat(client, **fields).choices[0].message.content.lstrip().startswith("{")


@pytest.mark.parametrize(
    ("guide", "pattern"),
    [
        ({"guided_regex": "[0-9]{3}-[a-c]{2}"}, "[0-9]{3}-[a-c]{2}"),
        ({"guided_choice": ["Bath", "London, Kent"]}, "Bath|London, Kent"),
        ({"guided_json": SCHEMA}, r"\{.*\}"),
        ({"guided_grammar": 'start: "yes" | "no" "!"'}, "yes|no!"),
    ],
    ids=["regex", "choice", "json", "grammar"],
)
def test_guides(client, guide, pattern):
    answer = complete(client, max_tokens=200, seed=2, extra_body=guide)
    assert re.fullmatch(pattern, answer.choices[0].text, re.DOTALL)
    assert answer.choices[0].finish_reason == "stop"


def test_the_same_seed_gives_the_same_text_alone_and_among_others(server, client):
    fields = {"seed": 77, "temperature": 1.0, "max_tokens": 24}
    alone = complete(client, **fields).choices[0].text
    assert complete(client, **fields).choices[0].text == alone
    assert complete(client, **{**fields, "seed": 78}).choices[0].text != alone

    async def among() -> list[str]:
        async with async_client(server) as many:
            seeds = [77 if index % 4 == 0 else index for index in range(16)]
            answers = await asyncio.gather(*(complete(many, **{**fields, "seed": seed}) for seed in seeds))
            return [a.choices[0].text for a, seed in zip(answers, seeds, strict=True) if seed == 77]

    assert asyncio.run(among()) == [alone] * 4


def test_a_stop_string_ends_the_text_in_front_of_it(client):
    whole = complete(client, temperature=0, max_tokens=24).choices[0].text
    stop = whole.split()[3]
    answer = complete(client, temperature=0, max_tokens=24, stop=[stop]).choices[0]
    assert answer.text == whole[: whole.index(stop)]
    assert answer.finish_reason == "stop"


def test_a_stop_token_ends_the_text(client, token_of):
    a = token_of("a")
    answer = complete(client, logit_bias={str(a): 100}, extra_body={"stop_token_ids": [a]})
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage.completion_tokens == 1


def test_logit_bias_forces_and_bans(client, token_of, vocab_size):
    a, b = token_of("a"), token_of("b")
    assert complete(client, logit_bias={str(a): 100}).choices[0].text == "a" * 8
    others = {str(token): -100 for token in range(vocab_size) if token not in {a, b}}
    assert set(complete(client, logit_bias=others, max_tokens=24).choices[0].text) <= {"a", "b"}


def test_end_tokens_are_held_back_and_ignored(client):
    ended = complete(client, logit_bias={"0": 100})
    assert ended.choices[0].finish_reason == "stop"
    assert ended.usage.completion_tokens == 1
    held = complete(client, logit_bias={"0": 100}, extra_body={"min_tokens": 5})
    assert held.choices[0].finish_reason == "stop"
    assert held.usage.completion_tokens == 6
    ignored = complete(client, logit_bias={"0": 100}, extra_body={"ignore_eos": True})
    assert ignored.choices[0].finish_reason == "length"
    assert ignored.usage.completion_tokens == 8


def test_penalties_change_the_text(client):
    fields = {"temperature": 0, "max_tokens": 40}
    plain = complete(client, **fields).choices[0].text
    assert complete(client, **fields, frequency_penalty=2.0, presence_penalty=2.0).choices[0].text != plain
    assert complete(client, **fields, extra_body={"repetition_penalty": 1.9}).choices[0].text != plain


@pytest.mark.parametrize(
    "narrow", [{"top_p": 1e-6}, {"extra_body": {"top_k": 1}}, {"extra_body": {"min_p": 1.0}}]
)
def test_the_narrowest_filters_are_greedy(client, narrow):
    greedy = complete(client, temperature=0).choices[0].text
    assert complete(client, temperature=1.5, **narrow).choices[0].text == greedy


def test_responses(client):
    answer = client.responses.create(model=NAME, input=PROMPT, max_output_tokens=16)
    assert answer.output_text
    assert answer.usage.output_tokens == 16


def test_streamed_responses(client):
    events = list(client.responses.create(model=NAME, input=PROMPT, max_output_tokens=8, stream=True))
    assert any(event.type == "response.output_text.delta" for event in events)


def test_many_at_once(server):
    async def ask() -> list[openai.types.Completion]:
        async with async_client(server) as client:
            prompts = [f"{PROMPT} {index}" for index in range(NUM_TOGETHER)]
            return await asyncio.gather(*(complete(client, prompt=p, temperature=0) for p in prompts))

    async def read(client: openai.AsyncOpenAI, prompt: str) -> str:
        parts = await complete(client, prompt=prompt, temperature=0, stream=True)
        return "".join([part.choices[0].text async for part in parts])

    async def stream() -> list[str]:
        async with async_client(server) as client:
            return await asyncio.gather(*(read(client, f"{PROMPT} {i}") for i in range(NUM_TOGETHER)))

    answers = asyncio.run(ask())
    assert all(answer.usage.completion_tokens == 8 for answer in answers)
    assert asyncio.run(stream()) == [answer.choices[0].text for answer in answers]


def test_errors_are_the_client_s_own(client):
    with pytest.raises(openai.BadRequestError, match="leaves room for"):
        complete(client, max_tokens=100_000)
    with pytest.raises(openai.BadRequestError, match="leaves room for"):
        complete(client, max_tokens=100_000, stream=True)
    with pytest.raises(openai.NotFoundError, match="not found"):
        complete(client, model="nobody")
