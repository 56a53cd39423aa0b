"""Rows on the wire: C++ and torch make the same bytes, and these mean what their formats say."""

import pytest
import torch
from golden_ranks import NATIVE_IS_BUILT
from hypothesis import given, settings
from hypothesis import strategies as st

from rackscale.runtime.comm.wire import WIRE_NUMBERS, Wire
from rackscale.runtime.comm.wire_torch import decode_rows, encode_rows, row_bytes

pytestmark = pytest.mark.skipif(not NATIVE_IS_BUILT, reason="no compiler built it")

if NATIVE_IS_BUILT:
    from rackscale.runtime import _native

INF, NAN = float("inf"), float("nan")
SPECIAL = [0.0, -0.0, 1.0, -448.0, 464.0, 1e-40, -1e-45, 2.0**-126, 3e38, -3e38, INF, -INF, NAN]
wires = pytest.mark.parametrize("wire", Wire)


def by_torch(wire, rows_NH):
    out_NB = torch.zeros(len(rows_NH), row_bytes(wire, rows_NH.shape[1]), dtype=torch.uint8)
    encode_rows(wire, rows_NH, out_NB)
    return out_NB


def by_native(wire, rows_NH):
    out_NB = torch.zeros(len(rows_NH), row_bytes(wire, rows_NH.shape[1]), dtype=torch.uint8)
    for row_H, out_B in zip(rows_NH.contiguous(), out_NB, strict=True):
        _native.encode_row(WIRE_NUMBERS[wire], row_H.data_ptr(), len(row_H), out_B.data_ptr())
    return out_NB


def native_rows(wire, from_NB, width):
    rows_NH = torch.empty(len(from_NB), width)
    for from_B, row_H in zip(from_NB, rows_NH, strict=True):
        _native.decode_row(WIRE_NUMBERS[wire], from_B.data_ptr(), width, row_H.data_ptr())
    return rows_NH


def check(wire, rows_NH):
    """Both make the same bytes and read the same numbers."""
    width = rows_NH.shape[1]
    encoded_NB = by_native(wire, rows_NH)
    assert torch.equal(encoded_NB, by_torch(wire, rows_NH))
    decoded_NH = decode_rows(wire, encoded_NB, width)
    torch.testing.assert_close(
        native_rows(wire, encoded_NB, width), decoded_NH, rtol=0, atol=0, equal_nan=True
    )
    return decoded_NH


@wires
@given(
    width=st.integers(1, 300),
    seed=st.integers(0, 2**32),
    exponent=st.integers(-44, 38),
    special=st.lists(st.sampled_from(SPECIAL), max_size=3),
)
@settings(max_examples=60, deadline=None)
def test_both_make_the_same_bytes(wire, width, seed, exponent, special):
    draws = torch.Generator().manual_seed(seed)
    rows_NH = torch.randn(2, width, generator=draws).double() * 10.0**exponent
    rows_NH = rows_NH.float()
    rows_NH[0, : len(special)] = torch.tensor(special)[:width]
    check(wire, rows_NH)


@wires
@pytest.mark.parametrize("width", [1, 63, 128, 129, 7168])
def test_rows_are_as_long(wire, width):
    assert row_bytes(wire, width) == _native.row_bytes(WIRE_NUMBERS[wire], width)


@wires
@pytest.mark.parametrize("value", SPECIAL)
def test_rows_of_one_value(wire, value):
    """The value comes back as exactly as its format has it. Of infinities fp8 leaves no number."""
    decoded_NH = check(wire, torch.full((1, 130), value))
    if wire == Wire.FP8 and value in {INF, -INF}:
        value = NAN
    absolute = 0 if wire == Wire.FP32 else 2.0**-126 / 448
    torch.testing.assert_close(
        decoded_NH, torch.full((1, 130), value), rtol=2.0**-8, atol=absolute, equal_nan=True
    )


def test_bf16_is_that_of_torch():
    draws = torch.Generator().manual_seed(0)
    bits = torch.randint(-(2**31), 2**31, (1, 20_000), generator=draws).int()
    values_NH = bits.view(torch.float32)
    values_NH = values_NH[:, ~values_NH[0].isnan()]
    codes = by_native(Wire.BF16, values_NH)[:, : 2 * values_NH.shape[1]].view(torch.bfloat16)
    assert torch.equal(codes, values_NH.bfloat16())


def test_e4m3_is_that_of_torch():
    """Rows whose largest is 448, so that their scale is 1: all codes, and what lies halfway between two."""
    codes = torch.arange(0x7F, dtype=torch.uint8).view(torch.float8_e4m3fn).float()
    halfway = (codes[1:] + codes[:-1]) / 2
    near = torch.cat([halfway * (1 + 2.0**-20), halfway * (1 - 2.0**-20)])
    values = torch.cat([codes, halfway, near])
    values = torch.cat([values, -values])
    padded = torch.nn.functional.pad(values, (0, -len(values) % 127)).view(-1, 127)
    rows_NH = torch.nn.functional.pad(padded, (1, 0), value=448.0)
    encoded_NB = by_native(Wire.FP8, rows_NH)
    assert torch.equal(encoded_NB[:, :4].view(torch.float32), torch.ones(len(rows_NH), 1))
    assert torch.equal(encoded_NB[:, 64:], rows_NH.to(torch.float8_e4m3fn).view(torch.uint8))


def test_what_is_not_a_number_stays_alone():
    row_H = torch.ones(1, 256)
    row_H[0, 3] = NAN
    for wire in Wire:
        assert check(wire, row_H).isnan().nonzero().tolist() == [[0, 3]]
