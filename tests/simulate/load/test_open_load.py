import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rackscale.core import SpecError
from rackscale.simulate.load import Diurnal, FixedLengths, GammaBursts, Poisson, UniformLengths, open_load

LOADS = st.one_of(
    st.builds(Poisson, rate_per_s=st.floats(0.1, 50)),
    st.builds(GammaBursts, rate_per_s=st.floats(0.1, 50), variation=st.floats(0.1, 5)),
    st.builds(Diurnal, rate_per_s=st.floats(0.1, 50), swing=st.floats(0, 1), period_s=st.floats(1, 100)),
)


@given(load=LOADS, duration_s=st.floats(0.1, 50), seed=st.integers(0, 2**64))
def test_times_rise_within_the_duration_and_come_again(load, duration_s, seed):
    times_s = load.times_s(duration_s, seed)
    assert (np.diff(times_s) >= 0).all()
    assert ((times_s >= 0) & (times_s < duration_s)).all()
    assert (times_s == load.times_s(duration_s, seed)).all()


@pytest.mark.parametrize(
    ("load", "variation"),
    [
        (Poisson(rate_per_s=100), 1.0),
        (GammaBursts(rate_per_s=100, variation=3), 3.0),
        (GammaBursts(rate_per_s=100, variation=0.2), 0.2),
    ],
)
def test_rate_and_variation_are_those_asked_for(load, variation):
    gaps_s = np.diff(load.times_s(1000, 5))
    # Five deviations of the mean of that many gaps.
    assert gaps_s.mean() == pytest.approx(0.01, rel=5 * variation / math.sqrt(1e5))
    assert gaps_s.std() / gaps_s.mean() == pytest.approx(variation, rel=0.05)


def test_a_day_swings_about_its_mean():
    times_s = Diurnal(rate_per_s=10, swing=0.6, period_s=400).times_s(4000, 2)
    assert len(times_s) / 4000 == pytest.approx(10, rel=0.03)
    quarters, _ = np.histogram(times_s % 400, bins=4, range=(0, 400))
    mean = 10 * 1000 * (1 + 0.6 * 2 / math.pi * np.array([1, 1, -1, -1]))
    assert quarters == pytest.approx(mean, rel=0.06)


def test_arrivals_have_lengths_of_their_own_stream():
    lengths = UniformLengths(num_prompt=800, num_output=100)
    arrivals = list(open_load(Poisson(rate_per_s=5), lengths, duration_s=100, seed=1, priority=2))
    slower = list(open_load(Poisson(rate_per_s=2), lengths, duration_s=100, seed=1))
    assert len(arrivals) == pytest.approx(500, rel=0.2)
    assert {arrival.priority for arrival in arrivals} == {2}
    assert all(640 <= arrival.num_prompt <= 800 for arrival in arrivals)
    assert [a.num_prompt for a in slower] == [a.num_prompt for a in arrivals[: len(slower)]]


def test_bad_loads_are_named():
    with pytest.raises(SpecError, match="rate of 0"):
        Poisson(rate_per_s=0)
    with pytest.raises(SpecError, match="rate of nan"):
        Diurnal(rate_per_s=math.nan, swing=0)
    with pytest.raises(SpecError, match="variation of 0"):
        GammaBursts(rate_per_s=1, variation=0)
    with pytest.raises(SpecError, match="variation of 1000 is above 100"):
        GammaBursts(rate_per_s=1, variation=1000)
    with pytest.raises(SpecError, match="swing of 2"):
        Diurnal(rate_per_s=1, swing=2)
    with pytest.raises(SpecError, match="duration of 0"):
        list(open_load(Poisson(rate_per_s=1), FixedLengths(num_prompt=1, num_output=1), duration_s=0, seed=0))
    with pytest.raises(SpecError, match="more than 100000000"):
        Poisson(rate_per_s=1e9).times_s(3600, 0)
