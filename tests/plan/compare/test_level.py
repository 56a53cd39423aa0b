"""A throughput at a speed of users, and what is left open of it."""

from dataclasses import replace

import numpy as np
import pytest
from believing import BELIEFS, NUM_DRAWS, beliefs
from planning import question

from rackscale.core import SpecError
from rackscale.plan.compare.level import at_level, need_level, noise, throughput, unrestricted
from rackscale.plan.compare.level_noise import level_noise
from rackscale.plan.search import pools

ASKED = question("olmoe-1b-7b", role="mixed", weights="bf16", redundant=0, interactivity=60.0)


@pytest.fixture(autouse=True)
def few_batches(monkeypatch):
    monkeypatch.setattr(pools, "batches", lambda: 4.0 ** np.arange(6))


def test_the_best_is_first_and_draws_are_about_it():
    level = at_level(ASKED, BELIEFS)
    assert len(level.logs) == 1 + NUM_DRAWS
    assert np.exp(level.logs[0]) == pytest.approx(level.tokens_per_s_per_chip)
    assert 0 < level.logs[1:].std() < 0.3
    assert level.chips == 8


def test_slower_users_let_more_be_reached():
    found = at_level(ASKED, BELIEFS).found
    speeds = (40.0, 60.0, 80.0)
    reached = [throughput(replace(ASKED, interactivity=speed), found, BELIEFS.best)[0] for speed in speeds]
    assert reached == sorted(reached, reverse=True)


def test_where_even_one_request_is_too_slow_its_throughput_stands():
    found = at_level(ASKED, BELIEFS).found
    fastest = throughput(replace(ASKED, interactivity=1e4), found, BELIEFS.best)
    beyond = throughput(replace(ASKED, interactivity=1e5), found, BELIEFS.best)
    assert fastest == pytest.approx(beyond)


def test_without_an_interactivity_it_is_that_of_the_deployment():
    free = replace(ASKED, interactivity=None)
    found = at_level(ASKED, BELIEFS).found
    own = replace(ASKED, interactivity=float(found.tokens_per_s_per_user[0]))
    assert throughput(free, found, BELIEFS.best) == pytest.approx(throughput(own, found, BELIEFS.best))


def test_what_nothing_meets_is_no_level():
    asked = replace(ASKED, interactivity=1e5)
    assert at_level(asked, BELIEFS) is None
    frontier = unrestricted(asked, BELIEFS)
    with pytest.raises(SpecError, match=r"hgx-b200 \(mixed\) gives no user .* its fastest is"):
        need_level(asked, BELIEFS, frontier)
    late = replace(ASKED, ttft_s=1e-6)
    with pytest.raises(SpecError, match="allow a longer time"):
        need_level(late, BELIEFS, unrestricted(late, BELIEFS))


def test_curves_of_one_node_lie_nearer_than_those_of_several():
    table = level_noise(BELIEFS)
    one, several = table["one node"], table["several nodes"]
    assert 0 < one.low < 2
    assert 0 < one.high < 2
    assert one.low + one.high < several.low + several.high


def test_noise_of_systems_that_are_known_is_that_of_curves():
    level = at_level(ASKED, BELIEFS)
    assert noise(level, BELIEFS) == level_noise(BELIEFS)["one node"]
    unknown = noise(level, beliefs(systems=()))
    assert unknown.low > 0.1
    assert unknown.high > 0.1
