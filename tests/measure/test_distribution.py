import pytest

from rackscale.measure import Distribution, distribution


def test_five_numbers():
    values = distribution(float(value) for value in range(101))
    assert values == Distribution(count=101, mean=50.0, p50=50.0, p90=90.0, p99=99.0)


def test_percentiles_lie_between_two_values():
    assert distribution([1.0, 2.0]).p90 == pytest.approx(1.9)


def test_nothing_has_no_distribution():
    assert distribution([]) is None
