"""Estimates add and max."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from rackscale.cost import Estimate

amounts = st.floats(0, 1e9)
estimates = st.builds(
    Estimate, seconds=amounts, flops=amounts, bytes_hbm=amounts, bytes_link=amounts, joules=amounts
)


@given(estimates, estimates)
def test_one_after_the_other_takes_the_sum_and_overlapped_the_longer(first, second):
    after, beside = first + second, first | second
    assert after.seconds == first.seconds + second.seconds
    assert beside.seconds == max(first.seconds, second.seconds)
    for name in ("flops", "bytes_hbm", "bytes_link", "joules"):
        assert getattr(beside, name) == getattr(after, name)


@given(estimates, st.integers(0, 100))
def test_times_is_so_many_in_a_row(estimate, times):
    many = times * estimate
    assert many.seconds == times * estimate.seconds
    assert many.joules == times * estimate.joules


def test_arrays_broadcast():
    whole = Estimate(seconds=np.array([1.0, 5.0])) | Estimate(seconds=np.array([[2.0], [3.0]]))
    assert whole.seconds.tolist() == [[2.0, 5.0], [3.0, 5.0]]


def test_other_time_keeps_the_work():
    assert Estimate(seconds=1.0, flops=7.0).lasting(3.0).flops == 7.0
