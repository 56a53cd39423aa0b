"""Plans: the level of service, alternatives with their reasons, and what says no."""

import dataclasses
import re

import pytest
from planning import beliefs, question

from rackscale.core import SpecError
from rackscale.plan.planner import plan
from rackscale.plan.search import best
from rackscale.plan.types import Objective
from rackscale.specs import Role

BELIEFS = beliefs()


@pytest.fixture(scope="module")
def kimi():
    asked = question(
        "kimi-k2-thinking", "gb200-nvl72", weights="auto", isl=8192, osl=1024, interactivity=40.0
    )
    return plan(asked, BELIEFS)


def test_the_level_is_met(kimi):
    point = kimi.best.point
    assert 1 / point.tpot_s.value >= 40 * (1 - 1e-5)
    assert point.chips <= 72
    assert sum(pool.chips for pool in kimi.best.pools) == point.chips
    assert point.tpot_p99_s >= point.tpot_s.value
    assert point.ttft_p99_s >= point.ttft_s.value


def test_every_figure_lies_in_its_interval(kimi):
    for one in (kimi.best, *kimi.pareto):
        for band in (one.point.tokens_per_s_per_chip, one.point.tpot_s, one.point.ttft_s):
            assert band.low < band.value < band.high


def test_the_frontier_falls(kimi):
    speeds = [1 / one.point.tpot_s.value for one in kimi.pareto]
    rates = [one.point.tokens_per_s_per_chip.value * one.point.chips for one in kimi.pareto]
    assert speeds == sorted(speeds, reverse=True)
    assert rates == sorted(rates)


def test_what_was_not_chosen_says_why_in_numbers(kimi):
    kinds = [other.why_not.split(":")[0] for other in kimi.alternatives]
    assert kinds[0] == "prompts and answers in the same groups"
    assert "experts over 8 chips at most" in kinds
    assert "weights as published, int4" in kinds
    chosen = kimi.best.point.tokens_per_s_per_chip.value * kimi.best.point.chips
    for other in kimi.alternatives:
        assert re.search(r"\d+% fewer tokens/s per chip|no more of the whole budget", other.why_not)
        assert "bound by" in other.why_not
        point = other.deployment.point
        assert point.tokens_per_s_per_chip.value * point.chips <= chosen * 1.001


def test_operators_add_up_to_the_step(kimi):
    decode = sum(operator.seconds for operator in kimi.best.operators[Role.DECODE])
    assert decode == pytest.approx(kimi.best.point.tpot_s.value, rel=0.02)
    for operators in kimi.best.operators.values():
        for operator in operators:
            assert operator.formula.startswith("rackscale.")
            assert operator.source


def test_memory_adds_up_to_the_chip(kimi):
    for shares in kimi.best.memory.values():
        assert sum(share.bytes for share in shares) == pytest.approx(
            question("kimi-k2-thinking", "gb200-nvl72").system.chip.hbm_bytes, rel=1e-6
        )


@pytest.mark.parametrize("role", ["mixed", "disaggregated"])
def test_a_role_is_kept(role):
    made = plan(question(role=role), BELIEFS)
    assert (made.best.pools[0].role is Role.MIXED) == (role == "mixed")
    assert made.best.binding
    if role == "mixed":
        names = [operator.name for operator in made.best.operators[Role.MIXED]]
        assert names[-1] == "stalls by prompts"
    assert all(not other.why_not.startswith("prompts and answers") for other in made.alternatives)


def test_power_and_money_are_the_systems():
    asked = question(objective=Objective.USD, price="rental", power="utility")
    point = plan(asked, BELIEFS).best.point
    rate = point.tokens_per_s_per_chip.value
    assert point.tokens_per_s_per_mw == pytest.approx(rate / asked.system.power_w["utility"] * 1e6)
    price = asked.system.usd_per_chip_hour["rental"]
    assert point.usd_per_mtok == pytest.approx(price / 3600 / rate * 1e6)


def test_more_noise_and_more_doubt_widen_intervals():
    narrow = plan(question(), BELIEFS).best.point.tokens_per_s_per_chip
    wide = plan(question(), beliefs(spread=0.6)).best.point.tokens_per_s_per_chip
    assert wide.value == narrow.value
    assert wide.high - wide.low > narrow.high - narrow.low


def test_memory_binds_where_it_is_full():
    long = question("deepseek-r1", "hgx-h200", isl=32768, osl=8192, role="mixed", chips=8)
    assert plan(long, BELIEFS).best.binding == "HBM for KV"


def test_a_level_that_nothing_meets_names_the_closest():
    with pytest.raises(
        SpecError, match=r"nothing gives 5000 tokens/s per user.*the closest is \d+.*bound by"
    ):
        plan(question(interactivity=5000.0), BELIEFS)
    with pytest.raises(
        SpecError, match=r"and a first token in 0.05 s.*the closest is.*first token after 0\.\d"
    ):
        plan(question(interactivity=50.0, ttft_s=0.05), BELIEFS)
    with pytest.raises(SpecError, match=r"nothing gives a first token in 1e-06 s.*the closest is"):
        plan(question(ttft_s=1e-6), BELIEFS)


def test_a_level_with_both_limits_is_met_on_both():
    point = plan(question(interactivity=60.0, ttft_s=0.25), BELIEFS).best.point
    assert point.ttft_s.value <= 0.25
    assert 1 / point.tpot_s.value >= 60 * (1 - 1e-5)


def test_a_skew_costs_wide_groups_something():
    wide = question("deepseek-r1", "gb200-nvl72", redundant=0, role="disaggregated", interactivity=60.0)
    even, skewed = (
        best(dataclasses.replace(wide, skew=skew), BELIEFS.best).tokens_per_s_per_chip[0]
        for skew in (0.0, 1.2)
    )
    assert skewed < even


def test_engines_differ_only_where_they_were_measured():
    own = plan(dataclasses.replace(question(), engine="trtllm"), BELIEFS)
    assert own.best.point.tokens_per_s_per_chip.value > 0


def test_one_chip_has_no_pools_of_their_own():
    made = plan(question(chips=1), BELIEFS)
    assert made.best.point.chips == 1
    assert not made.alternatives
