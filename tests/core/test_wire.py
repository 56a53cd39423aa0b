import msgspec
import numpy as np
import pytest

from rackscale.core import (
    Arrive,
    Emit,
    Event,
    GroupId,
    Guide,
    GuideKind,
    PlanId,
    RankPlan,
    RankResult,
    Request,
    RequestId,
    Sampling,
    Seat,
    StepDone,
    TokenId,
    column,
    decode_json,
    decode_msgpack,
    encode_json,
    encode_msgpack,
)

REQUEST = Request(
    id=RequestId("a"),
    prompt=(TokenId(1), TokenId(2)),
    max_tokens=3,
    sampling=Sampling(logit_bias={TokenId(5): -1.5}, guide=Guide(kind=GuideKind.REGEX, source="a+")),
)
EMIT = Emit(requests=(RequestId("a"),), tokens=column([7]), samples=column([0]))


def test_a_request_is_the_same_after_either_wire():
    event = Arrive(request=REQUEST)
    assert decode_json(encode_json(event), Event) == event
    assert decode_msgpack(encode_msgpack(event), Event) == event


def test_columns_are_lists_in_json():
    assert encode_json(EMIT) == b'{"type":"Emit","requests":["a"],"tokens":[7],"samples":[0]}'


@pytest.mark.parametrize(("encode", "decode"), [(encode_json, decode_json), (encode_msgpack, decode_msgpack)])
def test_columns_come_back_as_int32(encode, decode):
    result = RankResult(tokens=column([1, -2, 2**31 - 1]), expert_loads=column())
    event = StepDone(group=GroupId(0), plan=PlanId(4), ranks=(result,))
    tokens = decode(encode(event), StepDone).ranks[0].tokens
    assert tokens.dtype == np.int32
    assert tokens.tolist() == [1, -2, 2**31 - 1]


def test_a_strided_column_is_packed():
    strided = np.arange(6, dtype=np.int32)[::2]
    result = RankResult(tokens=strided, expert_loads=column())
    assert decode_msgpack(encode_msgpack(result), RankResult).tokens.tolist() == [0, 2, 4]


def test_a_plan_is_the_same_after_the_wire_between_processes():
    plan = RankPlan(
        seats=(Seat(row=1, request=REQUEST, emitted=(TokenId(9),)),),
        rows=column([1]),
        num_computed=column([0]),
        num_new=column([3]),
        samples=column([1]),
        block_rows=column([1]),
        block_indices=column([0]),
        block_ids=column([5]),
    )
    again = decode_msgpack(encode_msgpack(plan), RankPlan)
    assert again.seats == plan.seats
    assert again.block_ids.tolist() == [5]


@pytest.mark.parametrize("encode", [encode_json, encode_msgpack])
def test_what_has_no_wire_form_is_a_type_error(encode):
    with pytest.raises(TypeError, match="object has no wire form"):
        encode(object())


@pytest.mark.parametrize(
    ("tokens", "what"),
    [
        ("7", "list of integers"),
        ("[1.5]", "list of integers"),
        ("[true]", "list of integers"),
        ("[[1]]", "list of integers"),
        ("[2147483648]", "32 bits"),
    ],
)
def test_a_column_of_anything_else_is_refused(tokens, what):
    line = f'{{"tokens": {tokens}, "expert_loads": []}}'
    with pytest.raises(msgspec.ValidationError, match=what):
        decode_json(line, RankResult)


def test_a_cut_binary_column_is_refused():
    with pytest.raises(msgspec.ValidationError, match="multiple of element size"):
        decode_msgpack(msgspec.msgpack.encode({"tokens": b"abc", "expert_loads": b""}), RankResult)
