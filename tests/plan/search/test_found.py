"""The search is exact within its space, and what it finds is what the closed loop says."""

import dataclasses

import numpy as np
import pytest
from planning import PRIORS, question

from rackscale.core import SpecError
from rackscale.plan.search import Deployments, best, evaluate, pools, search, space
from rackscale.plan.search.frontier import staircase
from rackscale.plan.search.ratio import MOST_BUSY, MOST_GROUPS

BATCHES = np.array([1.0, 8.0, 64.0, 256.0])


@pytest.fixture
def few_batches(monkeypatch):
    monkeypatch.setattr(pools, "batches", lambda: BATCHES)


def brute_force(asked, chips, *, disaggregated):
    """Every layout of a role on its own: seconds for a token, tokens per second and chip of the budget."""
    every = space.groups(asked, chips)
    rooms = evaluate.room(asked, every)
    cells = [
        (group, min(batch, np.floor(room)))
        for group, room in enumerate(rooms)
        if room >= 1
        for batch in BATCHES
        if batch <= room or np.floor(room) < BATCHES.max()
    ]
    if disaggregated:
        fitting = np.flatnonzero(rooms >= 1)
        rows = [
            (prefill, group, batch, answers, prompts)
            for group, batch in cells
            for prefill in fitting
            for answers in range(1, MOST_GROUPS + 1)
            for prompts in range(1, MOST_GROUPS + 1)
            if answers * every.ranks[group] + prompts * every.ranks[prefill] <= chips
            and every.weights[group] == every.weights[prefill]
        ]
    else:
        rows = [(group, group, batch, 1, 1) for group, batch in cells]
    table = np.array(rows).T
    prefill, decode = every.take(table[0].astype(int)), every.take(table[1].astype(int))
    deployments = Deployments(
        disaggregated=np.full(len(rows), disaggregated),
        prefill=prefill,
        decode=decode,
        prefill_groups=table[4],
        decode_groups=table[3],
        sequences=table[2] * decode.ranks / decode.tp,
        concurrency=np.ones(len(rows)),
    )
    own = evaluate.prompts(asked, prefill, PRIORS, disaggregated=disaggregated)
    seconds, _ = evaluate.decode_steps(
        asked, decode, deployments.sequences[None], PRIORS, disaggregated=disaggregated
    )
    state = evaluate.steady(asked, deployments, own, seconds[0], PRIORS)
    copies = np.floor(chips / deployments.chips)
    goal = state.tokens_per_s_per_chip * copies * deployments.chips / chips
    busiest = MOST_BUSY if disaggregated else pools.MOST_BUSY_MIXED
    good = (state.utilisation <= busiest) & (state.ttft_s <= (asked.ttft_s or np.inf))
    return state.tpot_s[good], goal[good]


def stairs(tpot, goal):
    numbers = staircase(tpot, goal)
    return tpot[numbers], goal[numbers]


@pytest.mark.parametrize("role", ["mixed", "disaggregated"])
@pytest.mark.parametrize("limits", [{}, {"ttft_s": 0.25}, {"redundant": 0, "max_ep": 2}])
def test_nothing_beats_what_is_found(few_batches, role, limits):
    asked = question(role=role, chips=5, **limits)
    every = space.groups(asked, 5)
    fitting = every.take(np.flatnonzero(evaluate.room(asked, every) >= 1))
    run = pools._Run(asked, PRIORS, fitting, 5, pools.Window())
    run.mixed() if role == "mixed" else run.disaggregated()
    tpot, goal = stairs(*brute_force(asked, 5, disaggregated=role == "disaggregated"))
    assert len(tpot) > 2
    assert np.allclose(run.found.cost, tpot, rtol=1e-12)
    assert np.allclose(run.found.goal, goal, rtol=1e-12)


def test_found_figures_are_the_closed_loops(few_batches):
    frontier = search(question(), PRIORS)
    loop = evaluate.measured(question(), frontier.deployments, PRIORS)
    assert np.array_equal(loop.tpot_s[0], frontier.tpot_s)
    assert np.array_equal(loop.ttft_s[0], frontier.ttft_s)
    assert np.array_equal(loop.tokens_per_s_per_chip[0], frontier.tokens_per_s_per_chip)
    assert (np.diff(frontier.tokens_per_s_per_user) < 0).all()
    assert (np.diff(frontier.goal) > 0).all()


@pytest.mark.parametrize("interactivity", [20.0, 60.0, 120.0])
def test_the_best_meets_the_level_and_no_frontier_point_that_does_is_better(interactivity):
    asked = question(interactivity=interactivity)
    frontier = search(asked, PRIORS)
    found = best(asked, PRIORS, frontier)
    meeting = frontier.tokens_per_s_per_user >= interactivity
    assert found.tokens_per_s_per_user[0] >= interactivity * (1 - 1e-5)
    assert found.goal[0] >= frontier.goal[meeting].max() * (1 - 1e-9)


def test_a_search_near_the_level_finds_what_the_whole_one_does():
    asked = question(interactivity=80.0)
    whole = best(asked, PRIORS, search(asked, PRIORS))
    near = best(asked, PRIORS)
    assert near.goal[0] == pytest.approx(whole.goal[0], rel=0.005)


def test_nothing_is_best_where_nothing_meets_the_level():
    assert best(question(interactivity=1e5), PRIORS) is None
    assert best(question(ttft_s=1e-4), PRIORS) is None


def test_copies_fill_the_chips():
    frontier = search(question(chips=8, role="mixed"), PRIORS)
    assert (frontier.deployments.chips <= 8).all()
    assert (frontier.copies * frontier.deployments.decode.ranks == frontier.deployments.chips).all()
    assert (frontier.deployments.chips > 4).all()


def test_a_model_that_does_not_fit_says_how_many_chips_would():
    asked = question("kimi-k2-instruct", "hgx-h100", chips=8)
    with pytest.raises(SpecError, match="does not fit 8 chips of hgx-h100: it needs at least 16"):
        search(asked, PRIORS)


def test_what_fits_no_group_at_all_is_refused():
    alone = question("olmoe-1b-7b", max_ep=1, isl=4000, osl=96, weights="bf16")
    small = dataclasses.replace(alone.system.chip, hbm_bytes=1e9)
    asked = dataclasses.replace(alone, system=dataclasses.replace(alone.system, chip=small))
    with pytest.raises(SpecError, match="does not fit 576 chips of hgx-b200: give narrower weights"):
        search(asked, PRIORS)


def test_without_a_budget_as_many_domains_are_taken_as_the_model_needs():
    frontier = search(question("kimi-k2-instruct", "hgx-h100", role="mixed"), PRIORS)
    assert frontier.chips == 16


def test_a_longer_wait_is_no_worse():
    patient = best(question(interactivity=40.0, ttft_s=1.0), PRIORS)
    hasty = best(question(interactivity=40.0, ttft_s=0.2), PRIORS)
    assert hasty.ttft_s[0] <= 0.2
    assert patient.goal[0] >= hasty.goal[0] * (1 - 1e-3)


def test_taken_rows_keep_their_order():
    frontier = search(question(role="mixed"), PRIORS)
    numbers = np.array([2, 0])
    few = frontier.take(numbers)
    for field in dataclasses.fields(few.deployments.decode)[1:]:
        whole = getattr(frontier.deployments.decode, field.name)
        assert np.array_equal(getattr(few.deployments.decode, field.name), whole[numbers])
