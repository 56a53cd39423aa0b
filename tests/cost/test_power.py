"""Throughput and energy by power."""

import pytest

from rackscale.core import SpecError
from rackscale.cost.power import joules_per_token, tokens_per_s_per_mw, watts_of


def test_a_megawatt_has_as_many_chips_as_its_watts_feed():
    assert tokens_per_s_per_mw(1000.0, 2000.0) == pytest.approx(500e3)
    assert joules_per_token(1000.0, 2000.0) == pytest.approx(2.0)
    assert tokens_per_s_per_mw(7.0, 1870.0) * joules_per_token(7.0, 1870.0) == pytest.approx(1e6)


def test_powers_by_name():
    assert watts_of({"it": 1870.0, "utility": 2100.0}, "it") == 1870.0
    with pytest.raises(SpecError, match="power wall is not known: give one of it, utility"):
        watts_of({"it": 1870.0, "utility": 2100.0}, "wall")
