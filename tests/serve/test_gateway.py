"""What the gateway changes in a request's body."""

import json

import pytest

from rackscale.core import SpecError
from rackscale.serve.gateway import check_response_fields, with_extras


def passed(fields):
    return json.loads(with_extras(json.dumps(fields).encode(), 100))


@pytest.mark.parametrize(
    "body",
    [
        b'{"prompt":  "a"}',
        b"",
        b"{",
        b"[1]",
        b"\xff",
        b"[" * 100_000,
        b'{"prompt": 5, "echo": false, "suffix": null, "logit_bias": {}, "stop_token_ids": []}',
        b'{"prompt": ["a", [5, 99], true], "messages": "no list"}',
        b'{"messages": [5, {"content": "a"}, {"content": [{"type": "text", "text": "a"}, 5]}]}',
    ],
)
def test_most_pass_as_they_are(body):
    assert with_extras(body, 100) == body


def test_dropped_fields_become_an_annotation():
    fields = {"prompt": "a", "logit_bias": {"5": 1}, "stop_token_ids": [7], "priority": 3}
    got = passed(fields)
    assert got["prompt"] == "a"
    assert not got.keys() & {"logit_bias", "stop_token_ids", "priority"}
    (annotation,) = got["nvext"]["annotations"]
    assert json.loads(annotation.removeprefix("rackscale:")) == {
        "logit_bias": {"5": 1.0},
        "stop_token_ids": [7],
        "priority": 3,
    }


def test_annotations_of_the_client_stay():
    got = passed({"nvext": {"annotations": ["a"], "greed_sampling": True}, "priority": 1})
    assert got["nvext"]["annotations"][0] == "a"
    assert got["nvext"]["greed_sampling"]


@pytest.mark.parametrize("extension", [5, {"annotations": 5}, [1]])
def test_what_is_no_extension_is_left_to_the_frontend(extension):
    assert passed({"nvext": extension, "priority": 1})["nvext"] == extension


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"echo": True}, "echo"),
        ({"suffix": "b"}, "suffix"),
        ({"guided_choice": []}, "guided_choice is empty"),
        ({"prompt": [100]}, "token 100 of the prompt"),
        ({"prompt": ["a", [5, -1]]}, "token -1 of the prompt"),
        ({"logit_bias": [1]}, "logit_bias"),
        ({"stop_token_ids": {"a": 1}}, "stop_token_ids"),
        ({"priority": 10**40}, "priority"),
        ({"messages": [{"content": [{"type": "image_url"}]}]}, "content of type image_url"),
    ],
)
def test_what_is_refused(fields, says):
    with pytest.raises(SpecError, match=says) as refused:
        passed(fields)
    assert refused.value.hint


def test_fields_that_responses_do_not_have():
    check_response_fields(b'{"model": "m", "input": "a", "max_output_tokens": 4}')
    check_response_fields(b"no JSON")
    with pytest.raises(SpecError, match="does not have max_tokens, seed: use /v1/chat/completions"):
        check_response_fields(b'{"input": "a", "seed": 4, "max_tokens": 3}')
