"""Bad input against the running server: a 4xx with a sentence that says what to change, and it lives on."""

import json

import pytest
from live_server import NAME

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
RESPONSES = "/v1/responses"
MESSAGES = [{"role": "user", "content": "It is"}]
NOWHERE = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "nonsense"}}}
IMAGE = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://a/b.png"}}]}]

# What is changed in a good completion, and what the sentence must say.
COMPLETION_TABLE = [
    ({"max_tokens": 100_000}, 400, "leaves room for"),
    ({"max_tokens": 0}, 400, "greater than 0"),
    ({"max_tokens": -1}, 400, "-1"),
    ({"max_tokens": "many"}, 400, "many"),
    ({"min_tokens": 5}, 400, "min_tokens is 5: give 0 to max_tokens"),
    ({"temperature": 3}, 400, "Temperature must be between 0 and 2"),
    ({"temperature": -0.5}, 400, "Temperature must be between 0 and 2"),
    ({"top_p": 0}, 400, "Top_p must be between 0 and 1"),
    ({"top_k": -5}, 400, "Top_k must be"),
    ({"min_p": 2}, 400, "Min_p must be between 0 and 1"),
    ({"presence_penalty": 9}, 400, "Presence penalty must be between -2 and 2"),
    ({"frequency_penalty": -9}, 400, "Frequency penalty must be between -2 and 2"),
    ({"repetition_penalty": 0}, 400, "Repetition penalty must be between 0 and 2"),
    ({"n": 0}, 400, "n must be between 1 and 128"),
    ({"n": 200}, 400, "n must be between 1 and 128"),
    ({"logprobs": 200}, 400, "Logprobs must be between 0 and 5"),
    ({"seed": 1.5}, 400, "1.5"),
    ({"model": "nobody"}, 404, "not found"),
    ({"model": None}, 400, "null"),
    ({"prompt": ""}, 400, "cannot be empty"),
    ({"prompt": []}, 400, "cannot be empty"),
    ({"prompt": None}, 400, "did not match"),
    ({"prompt": [-1]}, 400, "token -1 of the prompt: the vocabulary is 0 to"),
    ({"prompt": [1_000_000]}, 400, "token 1000000 of the prompt: the vocabulary is 0 to"),
    ({"prompt": [[1], [1_000_000]]}, 400, "token 1000000 of the prompt"),
    ({"stop_token_ids": [1_000_000]}, 400, "token 1000000 of stop_token_ids"),
    ({"stop_token_ids": "x"}, 400, "stop_token_ids: Expected `array`"),
    ({"logit_bias": "x"}, 400, "logit_bias: Expected `object`"),
    ({"logit_bias": {"x": 1}}, 400, "logit_bias: Expected `int`"),
    ({"logit_bias": {"1000000": 1}}, 400, "logit_bias names token 1000000"),
    ({"logit_bias": {"5": 1000}}, 400, "give a finite number of at least -100 and at most 100"),
    ({"logit_bias": {"5": float("nan")}}, 400, "logit_bias"),
    ({"logit_bias": {"5": 1}, "nvext": 5}, 400, "NvExt"),
    ({"logit_bias": {"5": 1}, "nvext": {"annotations": 5}}, 400, "expected a sequence"),
    ({"nvext": {"annotations": ['rackscale:{"priority": "x"}']}}, 400, "priority"),
    ({"priority": "high"}, 400, "priority: Expected `int`"),
    ({"priority": 10**30}, 400, "priority: Expected `int` <= "),
    ({"echo": True}, 400, "echo: it is not supported"),
    ({"suffix": "."}, 400, "suffix: it is not supported"),
    ({"best_of": 3}, 400, "best_of is not supported"),
    ({"use_beam_search": True}, 400, "use_beam_search"),
    ({"frobnicate": 1}, 400, "frobnicate"),
    ({"guided_regex": "((("}, 400, "the regex guide cannot be followed"),
    ({"guided_grammar": "start: nothing"}, 400, "the grammar guide cannot be followed"),
    ({"guided_json": {"type": "nonsense"}}, 400, "the json_schema guide cannot be followed"),
    ({"guided_choice": []}, 400, "guided_choice is empty"),
    ({"guided_choice": ["a"], "guided_regex": "b"}, 400, "Only one guided-decoding constraint"),
]
CHAT_TABLE = [
    ({"messages": []}, 400, "cannot be empty"),
    ({"messages": "hello"}, 400, "invalid type"),
    ({"messages": IMAGE}, 400, "content of type image_url is not supported: give text"),
    ({"response_format": NOWHERE}, 400, "the json_schema guide cannot be followed"),
    ({"logprobs": True, "top_logprobs": 50}, 400, "Top_logprobs must be between 0 and 20"),
    ({"max_tokens": 100_000}, 400, "leaves room for"),
    ({"logit_bias": {"1000000": 1}}, 400, "logit_bias names token 1000000"),
    ({"echo": True}, 400, "echo: it is not supported"),
    ({"frobnicate": 1}, 400, "frobnicate"),
    ({"model": "nobody"}, 404, "not found"),
]
RAW_TABLE = [
    (b"", 400, "EOF"),
    (b"{", 400, "EOF"),
    (b"[]", 400, "sequence"),
    (b"null", 400, "null"),
    (b"\xff\xfe\x00", 400, ""),
    (b'{"model": "austen"}', 400, "prompt"),
    (b'{"model": "austen", "prompt": "a", "temperature": NaN}', 400, "expected value"),
    (b'{"model": "austen", "prompt": "a", "temperature": 1e400}', 400, "out of range"),
    (b"[" * 100_000, 400, ""),
    (b'{"prompt": "' + b"x" * (10 << 20) + b'"}', 413, "the body is larger than 8 MiB; shorten it"),
]


def name_of(value):
    return json.dumps(value) if isinstance(value, dict) else ""


def is_refused(answer, status, says):
    assert answer.status == status, answer.body[:500]
    assert says.lower() in answer.sentence.lower()
    assert answer.json["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize(("change", "status", "says"), COMPLETION_TABLE, ids=name_of)
def test_bad_completions(server, change, status, says, stream):
    body = {"model": NAME, "prompt": "It is", "max_tokens": 2, "stream": stream, **change}
    is_refused(server.post(COMPLETIONS, body), status, says)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize(("change", "status", "says"), CHAT_TABLE, ids=name_of)
def test_bad_chats(server, change, status, says, stream):
    body = {"model": NAME, "messages": MESSAGES, "max_tokens": 2, "stream": stream, **change}
    is_refused(server.post(CHAT, body), status, says)


@pytest.mark.parametrize(("body", "status", "says"), RAW_TABLE, ids=range(len(RAW_TABLE)))
def test_bad_bodies(server, body, status, says):
    is_refused(server.post(COMPLETIONS, body), status, says)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_a_prompt_that_is_too_long(server, context_length, stream):
    answer = server.complete(prompt=[5] * context_length, stream=stream)
    is_refused(answer, 400, f"shorten it to at most {context_length - 1} tokens")


@pytest.mark.parametrize("fields", [{"logit_bias": {"5": 1}}, {"seed": 3, "n": 2}], ids=name_of)
def test_what_the_frontend_would_ignore_in_a_response(server, fields):
    answer = server.post(RESPONSES, {"model": NAME, "input": "It is", "max_output_tokens": 2, **fields})
    is_refused(
        answer, 400, f"/v1/responses does not have {', '.join(sorted(fields))}: use /v1/chat/completions"
    )


def test_guides_that_would_hang_or_crash_their_reader(server):
    endless = {"guided_regex": "a?" * 40_000}
    deep = {
        "guided_grammar": "start: r0\n" + "".join(f"r{i}: r{i + 1}\n" for i in range(6000)) + 'r6000: "a"\n'
    }
    is_refused(server.complete(**endless), 400, "takes too long")
    is_refused(server.complete(**deep), 400, "too deep")
    assert server.complete(guided_choice=["yes", "no"]).status == 200


@pytest.mark.parametrize("path", ["/v1/nothing", "/nothing", "/v1/embeddings"])
def test_unknown_paths(server, path):
    assert server.post(path, {"model": NAME, "input": "a"}).status == 404


def test_the_server_answers_after_all_this(server):
    assert server.complete().status == 200
    assert server.get("/health").status == 200
    assert server.metric("rackscale_kv_blocks_used") == 0


def test_stderr_is_the_log_alone(server):
    server.complete(max_tokens=100_000)
    lines = [line for line in server.log.splitlines() if " loaded " not in line]
    assert len(lines) == 2
    assert " loading " in lines[0]
    assert " ready in " in lines[1]
    assert json.dumps(NAME)[1:-1] in lines[1]
