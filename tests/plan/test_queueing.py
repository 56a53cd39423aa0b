"""Queues against closed forms and against a simulation by hand."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rackscale.plan.queueing import MOST_BUSY, Queue, crowded, erlang_c, stalled


def test_erlang_c_by_its_textbook_sum():
    for servers, load in ((1, 0.4), (3, 2.0), (10, 9.5)):
        last = load**servers / math.factorial(servers) * servers / (servers - load)
        whole = sum(load**number / math.factorial(number) for number in range(servers)) + last
        assert erlang_c(load, servers) == pytest.approx(last / whole)


def test_many_servers_do_not_overflow():
    assert 0 < erlang_c(990.0, 1000) < 1


def test_one_server_is_pollaczek_and_khinchin():
    queue = Queue(arrivals_per_s=0.5, service_s=1.0, servers=1, service_scv=0.3)
    assert queue.mean_wait_s == pytest.approx(0.5 * 1.0 * (1 + 0.3) / 2 / (1 - 0.5))


def test_quantiles_of_m_m_1():
    queue = Queue(arrivals_per_s=0.8, service_s=1.0, servers=1, service_scv=1.0)
    assert queue.wait_s(0.99) == pytest.approx(math.log(0.8 / 0.01) / 0.2)
    assert queue.wait_s(0.1) == 0


@given(
    busy=st.floats(0.05, 0.98),
    servers=st.integers(1, 40),
    scv=st.floats(0, 4),
    quantile=st.floats(0.5, 0.999),
)
def test_more_servers_and_evener_lengths_wait_less(busy, servers, scv, quantile):
    queue = Queue(arrivals_per_s=busy * servers, service_s=1.0, servers=servers, service_scv=scv)
    more = Queue(arrivals_per_s=busy * servers, service_s=1.0, servers=servers + 1, service_scv=scv)
    even = Queue(arrivals_per_s=busy * servers, service_s=1.0, servers=servers)
    assert queue.wait_s(quantile) >= more.wait_s(quantile)
    assert queue.wait_s(quantile) >= even.wait_s(quantile)
    assert queue.wait_s(0.999) >= queue.wait_s(quantile)


def test_what_comes_too_often_waits_as_at_the_limit():
    assert Queue(arrivals_per_s=9.0, service_s=1.0, servers=2).busy == MOST_BUSY


def test_a_crowd_s_99th_percentile_over_a_stay():
    """Stays of length one that begin at random: how many others are there, in the mean of each stay."""
    rng, rate = np.random.Generator(np.random.PCG64(1)), 60.0
    starts = np.sort(rng.uniform(0, 2000, int(rate * 2000)))
    mine = starts[(starts > 1) & (starts < 1998)][::40]
    shared = [
        np.maximum(1 - np.abs(starts[slice(*np.searchsorted(starts, (one - 1, one + 1)))] - one), 0).sum()
        for one in mine
    ]
    assert np.quantile(shared, 0.99) == pytest.approx(crowded(rate), rel=0.05)


def test_interruptions_are_poisson():
    assert stalled(100.0) == pytest.approx(123.3, rel=0.01)
