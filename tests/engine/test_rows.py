import numpy as np
import pytest
from world import request

from rackscale.core import column
from rackscale.engine.rows import FIRST_WIDTH, Rows
from rackscale.engine.sequence import Sequence


def sequence(name="a", importance=0.0, limit=1000, **fields):
    return Sequence(request=request(name, **fields), importance=importance, limit=limit, names=[])


def rows_with(*sequences, num_rows=4):
    rows = Rows(num_rows, 2000, 4)
    for item in sequences:
        rows.seat(item, column(), 0)
    return rows


def compute(rows, row, num_new):
    """The row's next tokens are in a step, in new blocks where they need some."""
    counts = rows.blocks_lacking(column([row]), column([num_new]))
    if counts.sum():
        rows.append_blocks(column([row]), counts, np.arange(counts.sum(), dtype=np.int32))
    return rows.advance(column([row]), column([num_new]))


def test_rows_stand_by_importance():
    rows = rows_with(sequence("a", 2.0), sequence("b", 1.0), sequence("c", 2.0))
    assert rows.order.tolist() == [1, 0, 2]
    rows.vacate(0)
    assert rows.order.tolist() == [1, 2]
    assert rows.num_free == 2


def test_a_row_outgrows_its_columns():
    rows = rows_with(sequence(prompt=range(FIRST_WIDTH - 1)))
    compute(rows, 0, FIRST_WIDTH - 1)
    for token in range(5):
        rows.record(column([0]), column([token]))
        compute(rows, 0, 1)
    assert rows.known(0).tolist() == [*range(FIRST_WIDTH - 1), *range(5)]
    assert len(rows.blocks(0)) == (FIRST_WIDTH + 4) // 4


def test_columns_grow_no_further_than_a_sequence_can():
    rows = rows_with(sequence(prompt=range(1200)), sequence("b", prompt=range(1300)))
    assert rows.tokens.shape[1] == 2000


def test_rows_may_have_different_stop_tokens():
    stops = ((), (7,), (8, 9))
    rows = rows_with(*(sequence(str(at), stop_token_ids=ids) for at, ids in enumerate(stops)))
    for row in range(3):
        compute(rows, row, 3)
    stopped, full = rows.record(column([0, 1, 2]), column([7, 7, 7]))
    assert stopped.tolist() == [False, True, False]
    assert not full.any()


def test_a_later_owner_does_not_stop_at_an_earlier_ones_tokens():
    rows = rows_with(sequence(stop_token_ids=(7, 8)), num_rows=1)
    rows.vacate(0)
    rows.seat(sequence("b", stop_token_ids=(9,)), column(), 0)
    compute(rows, 0, 3)
    stopped, _ = rows.record(column([0]), column([8]))
    assert not stopped.any()


def test_recording_nothing_is_nothing():
    stopped, full = rows_with().record(column(), column())
    assert len(stopped) == len(full) == 0


@pytest.mark.parametrize(
    ("name", "value", "what"),
    [
        ("num_seated", 2, "a prompt is cut"),
        ("num_known", 2, "a row forgot tokens"),
        ("num_tokens", 2, "more is known than there is"),
        ("limit", 2, "beyond its limit"),
        ("num_computed", 9, "KV of no token"),
        ("num_computed", 1, "KV without a block"),
        ("num_blocks", 1, "a block without KV"),
    ],
)
def test_check_finds_columns_that_disagree(name, value, what):
    rows = rows_with(sequence())
    rows.check()
    getattr(rows, name)[0] = value
    with pytest.raises(AssertionError, match=what):
        rows.check()


def test_check_finds_a_lost_row():
    rows = rows_with(sequence())
    rows.order = rows.order[:0]
    with pytest.raises(AssertionError, match="a row is lost"):
        rows.check()


def test_check_finds_rows_out_of_order():
    rows = rows_with(sequence("a", 1.0), sequence("b", 2.0))
    rows.order = rows.order[::-1]
    with pytest.raises(AssertionError, match="out of order"):
        rows.check()
