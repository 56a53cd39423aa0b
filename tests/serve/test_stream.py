"""Tokens are gathered into parts; no part is lost, and none waits without need."""

import asyncio

import pytest

from rackscale.core import Finish, FinishReason, Refuse, RefuseReason, RequestId, TokenId
from rackscale.runtime.answer import TokenLogprobs
from rackscale.serve.stream import Lost, Refused, Stream

REFUSE = Refuse(request=RequestId("r"), reason=RefuseReason.QUEUE_FULL, what="full", hint="later")
INTERVAL_S = 1000.0


def finish():
    return Finish(request=RequestId("r"), reason=FinishReason.STOP, num_prompt=1, num_cached=0, num_output=1)


def stream_of(num_choices=1, interval_s=0.0):
    return Stream(num_choices, interval_s, lambda: 0.0)


async def read(stream):
    return [(part.index, part.tokens, part.finish is not None) async for part in stream.parts()]


def test_what_is_there_leaves_as_one_part():
    stream = stream_of()
    for token in (4, 5, 6):
        stream.put_token(0, TokenId(token), None)
    stream.put_finish(0, finish())
    assert asyncio.run(read(stream)) == [(0, [4, 5, 6], True)]


def test_an_end_while_the_reader_holds_a_part_is_not_lost():
    async def scenario():
        stream = stream_of()
        stream.put_token(0, TokenId(4), None)
        parts = stream.parts()
        first = await anext(parts)
        stream.put_token(0, TokenId(5), None)
        stream.put_finish(0, finish())
        return first.tokens, [(part.tokens, part.finish is not None) async for part in parts]

    assert asyncio.run(scenario()) == ([4], [([5], True)])


def test_choices_end_each_for_itself():
    stream = stream_of(num_choices=2)
    stream.put_token(1, TokenId(4), None)
    stream.put_finish(1, finish())
    stream.put_finish(0, finish())
    assert asyncio.run(read(stream)) == [(0, [], True), (1, [4], True)]


def test_logprobs_stay_with_their_tokens():
    stream = stream_of()
    logprobs = TokenLogprobs(sample=0, logprob=-0.5)
    stream.put_token(0, TokenId(4), logprobs)
    stream.put_finish(0, finish())

    async def scenario():
        return [part.logprobs async for part in stream.parts()]

    assert asyncio.run(scenario()) == [[logprobs]]


def test_the_first_part_and_the_last_leave_at_once():
    async def scenario():
        stream = stream_of(interval_s=INTERVAL_S)
        stream.put_token(0, TokenId(4), None)
        parts = stream.parts()
        first = await anext(parts)
        stream.put_finish(0, finish())
        return first.tokens, (await anext(parts)).finish is not None

    async def limited():
        async with asyncio.timeout(5):
            return await scenario()

    assert asyncio.run(limited()) == ([4], True)


def test_parts_between_wait_for_their_interval():
    clock = [0.0]

    async def scenario():
        stream = Stream(1, 0.01, lambda: clock[0])
        stream.put_token(0, TokenId(4), None)
        parts = stream.parts()
        await anext(parts)
        stream.put_token(0, TokenId(5), None)
        waiting = asyncio.ensure_future(anext(parts))
        await asyncio.sleep(0)
        stream.put_token(0, TokenId(6), None)
        return (await waiting).tokens

    assert asyncio.run(scenario()) == [5, 6]


def test_refusals_and_losses_are_raised():
    stream = stream_of()
    stream.put_refusal(REFUSE)
    with pytest.raises(Refused, match="full"):
        asyncio.run(read(stream))
    stream = stream_of()
    stream.lose("the rank died")
    with pytest.raises(Lost, match="the rank died"):
        asyncio.run(read(stream))
