"""Sweeps: rows, regimes and answers."""

import numpy as np
import pytest
from believing import BELIEFS
from planning import question

from rackscale.core import SpecError
from rackscale.plan.search import pools
from rackscale.plan.sweep import read_range, sweep
from rackscale.plan.types import Objective

FEW = 4.0 ** np.arange(6)  # sequences of an attention


@pytest.fixture(autouse=True)
def few_batches(monkeypatch):
    monkeypatch.setattr(pools, "batches", lambda: FEW)


def asked(**changes):
    given = {"role": "mixed", "redundant": 0, "weights": "bf16", "interactivity": 60.0, **changes}
    return question("olmoe-1b-7b", **given)


def swept(*texts, **changes):
    return sweep(asked(**changes), [read_range(text) for text in texts], BELIEFS)


def test_more_bandwidth_reaches_more_until_something_else_binds():
    found = swept("system.hbm_bandwidth=0.25TB..32TB")
    reached = [row.reached for row in found.rows]
    assert all(one is not None for one in reached)
    assert reached == sorted(reached)
    assert found.fits[0].regime.exponent > found.fits[-1].regime.exponent >= -0.01
    assert [fit.regime.first for fit in found.fits[1:]] == [fit.regime.last for fit in found.fits[:-1]]
    assert found.answer.question == "which rack suits this model"
    assert found.answer.best.reached == max(reached)
    assert found.answer.least.reached >= 0.95 * max(reached)


def test_two_paths_have_a_curve_for_each_value_of_the_other():
    found = swept("model.granularity=0.5,1,2", "isl=512,1024,2048")
    assert len(found.rows) == 9
    assert {(fit.over, *fit.at) for fit in found.fits} == {
        ("model.granularity", "isl"),
        ("isl", "model.granularity"),
    }
    assert {fit.at["isl"] for fit in found.fits if fit.over == "model.granularity"} == {512, 1024, 2048}
    assert found.answer.least is None


def test_what_is_varied_together_is_said_by_row():
    told = []
    values = [read_range("model.experts=32,64")]
    found = sweep(asked(), values, BELIEFS, told.append)
    assert told == list(found.rows)
    assert [row.values for row in told] == [{"model.experts": 32}, {"model.experts": 64}]
    assert found.answer.question == "which model shape suits this rack"


def test_the_model_as_it_is_has_a_gain_of_1():
    found = swept("model.experts=64")
    assert found.answer.gain == pytest.approx(1.0)
    assert found.fits == ()


def test_systems_by_name():
    found = swept("system=hgx-h200,hgx-b200", objective=Objective.USD)
    assert [row.deployment.system for row in found.rows] == ["hgx-h200", "hgx-b200"]
    assert found.unit == "tokens per dollar"
    assert found.rows[0].reached == pytest.approx(1e6 / found.rows[0].deployment.point.usd_per_mtok)
    assert found.fits == ()
    assert found.answer.least is None


def test_per_megawatt():
    (row,) = swept("isl=1024", objective=Objective.MW).rows
    assert row.reached == row.deployment.point.tokens_per_s_per_mw


def test_domains_of_any_size_have_the_same_chips():
    found = swept("system.domain=4,8")
    assert [row.deployment.point.chips for row in found.rows] == [8, 8]
    one, other = swept("system.domain=4,8", chips=4).rows
    assert one.deployment.point.chips == other.deployment.point.chips == 4


def test_values_that_nothing_serves_are_told_why():
    found = swept("system.hbm_bandwidth=0.02TB,8TB", "system.hbm_bytes=1e9,1e11", chips=4)
    whys = [row.why for row in found.rows]
    assert "does not fit" in whys[0]
    assert "users get" in whys[1]
    assert whys[3] == ""
    assert found.rows[0].deployment is None
    assert found.rows[0].reached is None


def test_users_who_cannot_wait():
    found = swept("isl=1024,2048", ttft_s=1e-6)
    assert {row.why for row in found.rows} == {"users wait too long for a first token"}
    assert found.answer is None


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        ((), "0 paths"),
        (("isl=1,2", "osl=1,2", "model.layers=8,16"), "3 paths"),
        (("isl=1,2", "isl=3,4"), "2 paths"),
        (("isl=100..900/20", "osl=10..500/20"), "400 plans"),
        (("isl=1e6",), "beyond the context"),
        (("model.top_k=64", "model.experts=32"), "64 of 32"),
    ],
)
def test_what_makes_no_sense(texts, words):
    with pytest.raises(SpecError, match=words):
        swept(*texts)
