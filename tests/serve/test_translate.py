"""From Dynamo's dictionary to requests."""

import pytest

from rackscale.checkpoint import GenerationDefaults
from rackscale.core import Guide, GuideKind, SpecError
from rackscale.serve.translate import Extras, translate

DEFAULTS = GenerationDefaults(eos_token_ids=(0,))
SAMPLING_DEFAULTS = GenerationDefaults(
    eos_token_ids=(0, 9), do_sample=True, temperature=0.6, top_p=0.9, top_k=40
)


def translated(body=None, defaults=DEFAULTS, **parts):
    body = {"token_ids": [5, 6, 7], **parts, **(body or {})}
    return translate(body, "r", defaults=defaults, vocab_size=100, max_model_len=32)


def sampling(defaults=DEFAULTS, **options):
    (request,) = translated(defaults=defaults, sampling_options=options)
    return request.sampling


def test_what_nothing_is_said_about():
    (request,) = translated()
    assert request.id == "r.0"
    assert request.prompt == (5, 6, 7)
    assert request.max_tokens == 29
    assert request.min_tokens == 0
    assert request.stop_token_ids == (0,)
    assert request.priority == 0
    assert request.sibling_of is None
    assert (request.sampling.temperature, request.sampling.top_k, request.sampling.top_p) == (1.0, 0, 1.0)
    assert request.sampling.num_logprobs is None
    assert request.sampling.guide is None


def test_the_checkpoint_s_defaults_give_way_to_the_client():
    told = sampling(SAMPLING_DEFAULTS)
    assert (told.temperature, told.top_k, told.top_p) == (0.6, 40, 0.9)
    told = sampling(SAMPLING_DEFAULTS, temperature=0.0, top_p=0.5)
    assert (told.temperature, told.top_k, told.top_p) == (0.0, 40, 0.5)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", 0.5),
        ("top_k", 7),
        ("top_p", 0.25),
        ("min_p", 0.125),
        ("presence_penalty", 1.5),
        ("frequency_penalty", -1.5),
        ("repetition_penalty", 1.25),
        ("seed", -3),
        ("seed", 0),
    ],
)
def test_sampling_options_arrive(name, value):
    assert getattr(sampling(**{name: value}), name) == value


def test_a_seed_is_drawn_where_none_is_given():
    assert sampling().seed != sampling().seed


def test_stop_conditions():
    stops = {"max_tokens": 9, "min_tokens": 2, "stop_token_ids": [3, 0]}
    (request,) = translated(stop_conditions=stops)
    assert (request.max_tokens, request.min_tokens) == (9, 2)
    assert request.stop_token_ids == (0, 3)
    (request,) = translated(stop_conditions={**stops, "ignore_eos": True, "stop_token_ids": [3]})
    assert request.stop_token_ids == (3,)


def test_choices_are_siblings_with_seeds_of_their_own():
    requests = translated(sampling_options={"n": 3, "seed": 5})
    assert [request.id for request in requests] == ["r.0", "r.1", "r.2"]
    assert [request.sibling_of for request in requests] == [None, "r.0", "r.0"]
    seeds = [request.sampling.seed for request in requests]
    assert seeds[0] == 5
    assert len(set(seeds)) == 3
    again = translated(sampling_options={"n": 3, "seed": 5})
    assert [request.sampling.seed for request in again] == seeds


def test_extras_travel_in_an_annotation():
    extras = Extras(logit_bias={4: -2.5}, stop_token_ids=(8,), priority=-1)
    (request,) = translated(annotations=["someone's own", extras.annotation()])
    assert request.sampling.logit_bias == {4: -2.5}
    assert request.stop_token_ids == (0, 8)
    assert request.priority == -1


@pytest.mark.parametrize(
    ("guided", "guide"),
    [
        (None, None),
        ({"json": None}, None),
        ({"json": {"type": "null"}}, Guide(kind=GuideKind.JSON_SCHEMA, source='{"type": "null"}')),
        ({"json": '{"type": "null"}'}, Guide(kind=GuideKind.JSON_SCHEMA, source='{"type": "null"}')),
        ({"regex": "a+", "json": None}, Guide(kind=GuideKind.REGEX, source="a+")),
        ({"choice": ["a", "b"]}, Guide(kind=GuideKind.CHOICE, source='["a", "b"]')),
        ({"grammar": 'start: "a"'}, Guide(kind=GuideKind.GRAMMAR, source='start: "a"')),
    ],
)
def test_guides(guided, guide):
    assert sampling(guided_decoding=guided).guide == guide


@pytest.mark.parametrize(("asked", "num"), [(None, None), (0, 0), (5, 5)])
def test_logprobs(asked, num):
    (request,) = translated(output_options={"logprobs": asked})
    assert request.sampling.num_logprobs == num


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"token_ids": [5, 100]}, "token 100 of the prompt: the vocabulary is 0 to 99"),
        ({"token_ids": [-1]}, "token -1 of the prompt"),
        ({"token_ids": [5] * 32}, "shorten it to at most 31 tokens"),
        ({"stop_conditions": {"max_tokens": 30}}, "give 1 to 29"),
        ({"stop_conditions": {"max_tokens": 0}}, "give 1 to 29"),
        ({"stop_conditions": {"max_tokens": 3, "min_tokens": 4}}, "give 0 to max_tokens, here 3"),
        ({"stop_conditions": {"stop_token_ids": [100]}}, "token 100 of stop_token_ids"),
        ({"sampling_options": {"n": 129}}, "n is 129: give 1 to 128"),
        ({"sampling_options": {"n": -1}}, "n is -1: give 1 to 128"),
        ({"sampling_options": {"temperature": float("nan")}}, "temperature is nan"),
        ({"sampling_options": {"top_p": float("inf")}}, "top_p is inf"),
        ({"sampling_options": {"best_of": 2}}, "best_of is not supported"),
        ({"sampling_options": {"use_beam_search": True}}, "use_beam_search is not supported"),
        ({"sampling_options": {"length_penalty": 0.5}}, "length_penalty is not supported"),
        ({"output_options": {"prompt_logprobs": 0}}, "echo and prompt_logprobs are not supported"),
        ({"sampling_options": {"guided_decoding": {"json": {}, "regex": "a"}}}, "structured output by"),
        ({"sampling_options": {"guided_decoding": {"whitespace_pattern": "a"}}}, "structured output by"),
        ({"annotations": ["rackscale:{"]}, "correct it"),
        ({"annotations": ['rackscale:{"priority": 1000001}']}, "priority"),
        ({"annotations": ['rackscale:{"logit_bias": {"200": 1}}']}, "logit_bias names token 200"),
    ],
)
def test_what_is_refused(body, says):
    with pytest.raises(SpecError) as refused:
        translated(body)
    assert says in str(refused.value)
    assert refused.value.hint
