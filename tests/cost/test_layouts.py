"""Groups as columns."""

import numpy as np

from rackscale.cost.layouts import layouts


def test_columns_are_as_long_as_the_longest():
    found = layouts(ranks=[8, 16], tp=8, ep=1, slots=256)
    assert found.tp.tolist() == [8.0, 8.0]
    assert found.attentions.tolist() == [1.0, 2.0]
    assert found.micro_batches.tolist() == [1.0, 1.0]


def test_numbers_are_columns_of_one():
    assert layouts(ranks=8, tp=1, ep=8, slots=256).ranks.shape == (1,)
    assert layouts(ranks=np.float64(8), tp=1, ep=8, slots=256).slots.tolist() == [256.0]
