"""What a rank holds, and for how many sequences there is room."""

import numpy as np
import pytest
from cases import work
from hypothesis import given
from hypothesis import strategies as st

from rackscale.cost import Precision, Shape, Work
from rackscale.cost.chips import Chips
from rackscale.cost.layouts import layouts
from rackscale.cost.memory import sequences_that_fit, weight_bytes
from rackscale.specs.catalog import load_model, load_system


def kimi_in_a_box():
    """Kimi K2 in INT4 on one H200 box, experts and attention split over its eight ranks."""
    shape = Shape.of(load_model("kimi-k2-thinking").spec)
    return Work(
        shape=shape,
        chips=Chips.of([load_system("hgx-h200")]),
        layouts=layouts(ranks=8, tp=8, ep=1, slots=384),
        precision=Precision.of(["int4"], ["bf16"], ["bf16"], np.array([2.0])),
        recipe=np.array([0]),
        engine=np.array([-1]),
        balance=np.zeros(1),
    )


def test_an_eighth_of_kimi_is_seventy_odd_gigabytes():
    """claim.md, point 3: 71 GB of experts a chip."""
    assert weight_bytes(kimi_in_a_box())[0] == pytest.approx(75.5e9, rel=0.03)


def test_a_box_holds_some_eighty_sequences():
    """claim.md, point 4: about 87 sequences of 9 K tokens in BF16, one copy for the whole box."""
    room = sequences_that_fit(kimi_in_a_box(), np.array([9216.0]), np.array([0.88]), np.array([False]))
    assert room[0] == pytest.approx(87, rel=0.15)


@given(st.sampled_from([1.0, 2.0, 4.0, 8.0]))
def test_attentions_side_by_side_hold_more_together(tp):
    shared = work(ranks=8.0, tp=8.0)
    apart = work(ranks=8.0, tp=tp)
    arguments = (np.array([1000.0]), np.array([0.9]), np.array([False]))
    assert sequences_that_fit(apart, *arguments) >= sequences_that_fit(shared, *arguments) * (1 - 1e-6)


def test_what_does_not_fit_has_no_room():
    shape = Shape.of(load_model("kimi-k2-thinking").spec)
    one = Work(
        shape=shape,
        chips=Chips.of([load_system("hgx-h200")] * 2),
        layouts=layouts(ranks=[1.0, 1.0], tp=1, ep=1, slots=384),
        precision=Precision.of(["int4"] * 2, ["bf16"] * 2, ["bf16"] * 2, np.ones(2)),
        recipe=np.zeros(2, dtype=np.intp),
        engine=np.zeros(2, dtype=np.intp),
        balance=np.zeros(2),
    )
    room = sequences_that_fit(one, np.array([9216.0]), np.array([0.9]), np.array([False, True]))
    assert room.tolist() == [0.0, 0.0]
