"""What a request was before its worker died."""

import pytest

from rackscale.serve.migration import OPEN, annotate, undo

PATH = "/v1/completions"


def body(tokens, max_tokens, first, **sampling):
    note = f"rackscale-max-tokens:{first}"
    stops = {"max_tokens": max_tokens, "stop": ["x"]}
    return {
        "token_ids": tokens,
        "annotations": ["other", note],
        "stop_conditions": stops,
        "sampling_options": sampling,
    }


def test_output_is_told_from_the_prompt():
    original, emitted = undo(body([1, 2, 3, 8, 9], 5, 7))
    assert original["token_ids"] == [1, 2, 3]
    assert original["stop_conditions"] == {"max_tokens": 7, "stop": ["x"]}
    assert emitted == (8, 9)


def test_who_gave_no_limit_has_none_again():
    original, emitted = undo(body([1, 2, 8], OPEN - 1, OPEN))
    assert original["token_ids"] == [1, 2]
    assert original["stop_conditions"]["max_tokens"] is None
    assert emitted == (8,)


@pytest.mark.parametrize("first", [9, 4, "x", ""])
def test_what_cannot_be_is_left_as_it_is(first):
    asked = body([1, 2, 3], 5, first)
    assert undo(asked) == (asked, ())


def test_a_request_without_a_note_is_left_as_it_is():
    asked = {"token_ids": [1], "stop_conditions": {"max_tokens": 5}}
    assert undo(asked) == (asked, ())


@pytest.mark.parametrize(
    ("path", "fields", "sent", "note"),
    [
        (PATH, {"max_tokens": 3}, {"max_tokens": 3}, 3),
        (PATH, {}, {"max_tokens": OPEN}, OPEN),
        (PATH, {"max_tokens": None}, {"max_tokens": OPEN}, OPEN),
        ("/v1/chat/completions", {"max_completion_tokens": 4}, {"max_completion_tokens": 4}, 4),
        ("/v1/chat/completions", {"max_tokens": 5}, {"max_tokens": 5}, 5),
    ],
)
def test_the_limit_is_written_down(path, fields, sent, note):
    annotate(path, fields)
    assert fields == {**sent, "nvext": {"annotations": [f"rackscale-max-tokens:{note}"]}}


def test_what_is_malformed_is_left_to_the_frontend():
    fields = {"max_tokens": "many"}
    annotate(PATH, fields)
    assert fields == {"max_tokens": "many"}
    fields = {"max_tokens": 1, "nvext": "x"}
    annotate(PATH, fields)
    assert fields == {"max_tokens": 1, "nvext": "x"}
