"""A ratio, its factors and its baseline."""

import math
from dataclasses import replace
from importlib import import_module

import numpy as np
import pytest
from believing import BELIEFS, beliefs
from planning import question

from rackscale.core import SpecError
from rackscale.plan.compare import BASELINES, compare, compare_with
from rackscale.plan.search import pools
from rackscale.plan.types import Objective
from rackscale.specs import Role
from rackscale.specs.catalog import load_system

H200, B200, GB200 = (load_system(name) for name in ("hgx-h200", "hgx-b200", "gb200-nvl72"))


# Few differences: each doubles the combinations.
RACK = replace(GB200, name="rack", chip=replace(H200.chip, hbm_bytes_per_s=8e12))
FEW = 4.0 ** np.arange(6)  # sequences of an attention


@pytest.fixture(autouse=True, scope="module")
def few_batches():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pools, "batches", lambda: FEW)
        yield


def asked(**changes):
    given = {"interactivity": 60.0, "weights": "auto", "power": "it", "redundant": 0, **changes}
    return question("olmoe-1b-7b", **given)


def renamed(system, name, **chip):
    return replace(system, name=name, chip=replace(system.chip, **chip))


@pytest.fixture(scope="module")
def both(few_batches):
    return compare_with(asked(objective=Objective.MW, chips=16), [H200, RACK], BASELINES, BELIEFS)


def product(comparison):
    return math.prod(step.factor for step in comparison.waterfall)


def test_differences_by_name(both):
    names = [step.step for step in both["box"].waterfall]
    assert names == [
        "memory bandwidth and size",
        "domain of 72: wide EP and its all-to-all",
        "disaggregation",
        "power, IT",
    ]
    assert "disaggregation" not in [step.step for step in both["disaggregated"].waterfall]


@pytest.mark.parametrize("baseline", BASELINES)
def test_factors_multiply_to_the_ratio(both, baseline):
    comparison = both[baseline]
    assert product(comparison) == pytest.approx(comparison.ratio.per_mw.value)
    assert comparison.waterfall[-1].cumulative == pytest.approx(comparison.ratio.per_mw.value)


def test_a_ratio_is_that_of_its_points(both):
    for comparison in both.values():
        first, last = (point.point for point in comparison.points.values())
        per_chip = last.tokens_per_s_per_chip.value / first.tokens_per_s_per_chip.value
        assert comparison.ratio.per_chip.value == pytest.approx(per_chip)
        per_mw = last.tokens_per_s_per_mw / first.tokens_per_s_per_mw
        assert comparison.ratio.per_mw.value == pytest.approx(per_mw)
        assert comparison.ratio.per_usd.value == pytest.approx(first.usd_per_mtok / last.usd_per_mtok)


def test_baselines_do_what_they_are_called(both):
    box, fleet = (both[name].points["hgx-h200"] for name in BASELINES)
    assert [pool.role for pool in box.pools] == [Role.MIXED]
    assert box.point.chips == H200.domain_chips
    assert [pool.role for pool in fleet.pools] == [Role.PREFILL, Role.DECODE]
    assert "box" in both["box"].baseline
    assert "up to 16 chips" in both["disaggregated"].baseline


def test_both_sides_keep_the_level(both):
    for comparison in both.values():
        assert all(1 / point.point.tpot_s.value >= 59.99 for point in comparison.points.values())


def test_intervals_hold_their_values(both):
    for comparison in both.values():
        for band in (comparison.ratio.per_chip, comparison.ratio.per_mw, comparison.ratio.per_usd):
            assert band.low < band.value < band.high
        for step in comparison.waterfall:
            assert step.low <= step.factor <= step.high


def test_the_curve_goes_through_what_is_asked(both):
    for comparison in both.values():
        (point,) = [point for point in comparison.curve if point.interactivity == 60]
        assert point.per_chip == pytest.approx(comparison.ratio.per_chip.value)
        assert len(comparison.curve) > 8
        speeds = [point.interactivity for point in comparison.curve]
        assert speeds == sorted(speeds)


def test_power_and_price_are_of_their_kind():
    other = replace(
        B200,
        name="other",
        power_w={"it": 1000.0, "utility": 3000.0},
        usd_per_chip_hour={"hyperscaler": 1.0, "rental": 5.0},
    )
    utility = compare(
        asked(role="mixed", power="utility", objective=Objective.MW), [B200, other], beliefs=BELIEFS
    )
    factor = B200.power_w["utility"] / 3000
    assert utility.ratio.per_mw.value == pytest.approx(utility.ratio.per_chip.value * factor)
    assert [step.step for step in utility.waterfall] == ["power, utility"]
    assert utility.waterfall[-1].factor == pytest.approx(factor)
    rental = compare(
        asked(role="mixed", price="rental", objective=Objective.USD), [B200, other], beliefs=BELIEFS
    )
    factor = B200.usd_per_chip_hour["rental"] / 5
    assert [step.step for step in rental.waterfall] == ["price, rental"]
    assert product(rental) == pytest.approx(rental.ratio.per_usd.value)
    assert rental.ratio.per_usd.value == pytest.approx(factor)


def test_what_does_not_differ_is_no_factor():
    faster = renamed(B200, "more-bandwidth", hbm_bytes_per_s=2 * B200.chip.hbm_bytes_per_s)
    comparison = compare(asked(role="mixed"), [B200, faster], beliefs=BELIEFS)
    (step,) = comparison.waterfall
    assert step.step == "memory bandwidth and size"
    assert step.factor == pytest.approx(comparison.ratio.per_chip.value)
    assert step.factor > 1.05


def test_the_same_system_by_another_name_is_no_better():
    comparison = compare(asked(role="mixed"), [B200, renamed(B200, "copy")], beliefs=BELIEFS)
    assert comparison.ratio.per_chip.value == pytest.approx(1.0)
    assert comparison.waterfall == ()


def test_systems_between_are_planned_for():
    systems = [renamed(B200, "first"), renamed(B200, "between"), B200]
    comparison = compare(asked(role="mixed"), systems, beliefs=BELIEFS)
    assert list(comparison.points) == ["first", "between", "hgx-b200"]
    between, last = list(comparison.points.values())[1:]
    assert between.point.tokens_per_s_per_chip.value == pytest.approx(last.point.tokens_per_s_per_chip.value)


def test_of_a_system_that_no_fit_has_seen_less_is_known(monkeypatch):
    monkeypatch.setattr(import_module("rackscale.plan.compare.comparison"), "waterfall", lambda *_: ())
    pair = [H200, B200]
    seen = compare(asked(role="mixed"), pair, beliefs=BELIEFS).ratio.per_chip
    unseen = compare(asked(role="mixed"), pair, beliefs=beliefs(systems=("h200",), noise=0.6)).ratio.per_chip
    assert unseen.low < seen.low < seen.high < unseen.high


@pytest.mark.parametrize(
    ("changes", "systems", "options", "words"),
    [
        ({}, [H200], {}, "one system"),
        ({}, [H200, H200], {}, "twice"),
        ({}, [H200, B200], {"baseline": "boxes"}, "give box"),
        ({"interactivity": None}, [H200, B200], {}, "give an interactivity"),
        ({"interactivity": 5000.0}, [H200, B200], {}, "its fastest is"),
        ({"power": "solar"}, [H200, B200], {}, "power solar"),
        ({"interactivity": -1.0}, [H200, B200], {}, "above 0"),
    ],
)
def test_what_cannot_be_compared(changes, systems, options, words):
    with pytest.raises(SpecError, match=words):
        compare(asked(**changes), systems, beliefs=BELIEFS, **options)


def test_a_model_that_needs_two_boxes(monkeypatch):
    monkeypatch.setattr(import_module("rackscale.plan.compare.comparison"), "waterfall", lambda *_: ())
    small = renamed(H200, "small", hbm_bytes=0.9e9)
    found = compare(asked(), [small, B200], beliefs=BELIEFS)
    assert "2 boxes of 8 chips" in found.baseline
    assert found.points["small"].point.chips == 16


def test_a_model_that_does_not_fit():
    small = renamed(H200, "small", hbm_bytes=1e7)
    with pytest.raises(SpecError, match="does not fit"):
        compare(asked(), [small, B200], beliefs=BELIEFS)
