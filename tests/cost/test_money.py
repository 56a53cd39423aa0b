"""What tokens cost."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rackscale.core import SpecError
from rackscale.cost.money import usd_per_hour_of, usd_per_mtok


def test_a_million_tokens():
    assert usd_per_mtok(1000.0, 3.6) == pytest.approx(1.0)


@given(st.floats(1, 1e6), st.floats(0.1, 100))
def test_an_hour_s_tokens_cost_an_hour(rate, price):
    assert usd_per_mtok(rate, price) * rate * 3600 / 1e6 == pytest.approx(price)


def test_tiers_by_name():
    assert usd_per_hour_of({"rental": 2.9}, "rental") == 2.9
    with pytest.raises(SpecError, match="price spot is not known: give one of rental"):
        usd_per_hour_of({"rental": 2.9}, "spot")
    with pytest.raises(SpecError, match="add one to a system file of your own"):
        usd_per_hour_of({}, "rental")
