"""Frames between a rank's process and its parent."""

import io

import msgspec
import pytest

from rackscale.core import RankResult, column
from rackscale.runtime.answer import RankAnswer, TokenLogprobs
from rackscale.runtime.messages import (
    LENGTH,
    Answered,
    Failed,
    Frames,
    FromHost,
    FromRank,
    Loading,
    Ready,
    frame,
    read_frame,
    unframe,
)

ANSWER = RankAnswer(
    result=RankResult(tokens=column([3, 1]), expert_loads=column()),
    logprobs=(TokenLogprobs(sample=1, logprob=-0.25, top=((3, -0.25), (4, -2.0))),),
)


@pytest.mark.parametrize(
    "message",
    [
        Loading(done=1, total=3),
        Ready(),
        Failed(what="a", hint="b", exit_code=2),
    ],
    ids=lambda message: type(message).__name__,
)
def test_messages_come_back(message):
    body = read_frame(io.BytesIO(frame(message)))
    assert body is not None
    assert unframe(body, FromRank | FromHost) == message


def test_an_answer_comes_back():
    got = unframe(frame(Answered(answer=ANSWER))[LENGTH.size :], FromRank)
    assert isinstance(got, Answered)
    assert got.answer.result.tokens.tolist() == [3, 1]
    assert got.answer.logprobs == ANSWER.logprobs


def test_frames_follow_each_other_and_then_nothing():
    stream = io.BytesIO(frame(Loading(done=1, total=3)) * 2)
    assert [read_frame(stream), read_frame(stream)] == [frame(Loading(done=1, total=3))[LENGTH.size :]] * 2
    assert read_frame(stream) is None


@pytest.mark.parametrize("cut", [1, 3, 5])
def test_half_a_frame_is_the_stream_s_end(cut):
    assert read_frame(io.BytesIO(frame(Loading(done=1, total=3))[:cut])) is None


@pytest.mark.parametrize("body", [b"", b"\xc1", b"\x81\xa4type\xa5Other"])
def test_what_is_no_message(body):
    with pytest.raises(msgspec.DecodeError):
        unframe(body, FromRank)


def test_frames_come_in_pieces():
    data, frames = frame(Loading(done=1, total=3)) + frame(Ready()), Frames()
    bodies = [body for at in range(len(data)) for body in frames.feed(data[at : at + 1])]
    assert [unframe(body, FromRank | FromHost) for body in bodies] == [Loading(done=1, total=3), Ready()]
    assert list(frames.feed(data)) == bodies
