"""Who prefills a prompt."""

from rackscale.policy import StepCosts, helps_out, local_limit, prefill_at_decode
from rackscale.policy.pools import QUEUE_STEPS_TO_HELP, QUEUE_STEPS_TO_STOP, UNKNOWN_TOKENS


def costs(base_s, per_token_s):
    made = StepCosts()
    for tokens in (0, 100) * 10:
        made.add(tokens, base_s + tokens * per_token_s)
    return made


UNKNOWN = StepCosts()
DECODE = costs(0.010, 0.0001)  # a hundred tokens double its step


def test_before_anything_is_measured():
    assert local_limit(UNKNOWN) == UNKNOWN_TOKENS
    assert prefill_at_decode(UNKNOWN_TOKENS, UNKNOWN, UNKNOWN, 0)
    assert not prefill_at_decode(UNKNOWN_TOKENS + 1, UNKNOWN, UNKNOWN, 0)


def test_prompt_tokens_that_cost_nothing_measurable():
    free = costs(0.010, 0.0)
    assert local_limit(free) == UNKNOWN_TOKENS


def test_a_prompt_may_double_a_step_and_no_more():
    assert abs(local_limit(DECODE) - 100) <= 1
    slow = costs(0.050, 0.001)
    assert prefill_at_decode(90, DECODE, slow, 0)
    assert not prefill_at_decode(110, DECODE, slow, 10_000)


def test_the_first_token_comes_where_it_comes_sooner():
    quick = costs(0.0001, 0.000001)
    assert not prefill_at_decode(90, DECODE, quick, 0)
    assert prefill_at_decode(90, DECODE, quick, 100_000), "a long queue there"


def test_a_decode_group_helps_out_while_prompts_wait_long():
    step_s = 0.01
    long_s = (QUEUE_STEPS_TO_HELP + 1) * step_s
    some_s = (QUEUE_STEPS_TO_STOP + 1) * step_s
    assert helps_out(helping=False, queued_s=long_s, step_s=step_s)
    assert not helps_out(helping=False, queued_s=some_s, step_s=step_s)
    assert helps_out(helping=True, queued_s=some_s, step_s=step_s), "it does not change its mind at once"
    assert not helps_out(helping=True, queued_s=0.0, step_s=step_s)
    assert not helps_out(helping=False, queued_s=long_s, step_s=0.0), "nothing is measured yet"
