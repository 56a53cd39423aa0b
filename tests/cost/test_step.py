"""Operators of a step against the formulas by hand, and how they must move."""

import dataclasses

import numpy as np
import pytest
from cases import GQA, model, work
from hypothesis import given
from hypothesis import strategies as st

from rackscale.cost import Batch, Parameters, from_priors, step
from rackscale.cost.parameters import all_names, prior_centre_and_spread
from rackscale.cost.step import COMPUTING, EXCHANGE

PRIORS = from_priors()


def batch(sequences, queries=1.0, context=1000.0, *, prefill=False):
    columns = (np.atleast_1d(np.asarray(value, dtype=np.float64)) for value in (sequences, queries, context))
    return Batch(**dict(zip(("sequences", "queries", "context"), columns, strict=True)), prefill=prefill)


def seconds(step_, name):
    return np.asarray(step_.operators[name].seconds)[0]


def test_projections_of_few_tokens_stream_and_of_many_multiply():
    one = work()
    weights = one.shape.replicated_weights + one.shape.split_weights
    few = seconds(step(one, batch(1.0), PRIORS), "attention projections")
    many = seconds(step(one, batch(4096.0), PRIORS), "attention projections")
    assert few == pytest.approx(4 * weights / (4.8e12 * 0.65))
    assert many == pytest.approx(4 * 2 * weights * 4096 / (1979e12 * 0.62), rel=1e-3)


def test_the_cache_is_read_once_for_all_heads():
    one = work()
    read = step(one, batch(32.0), PRIORS).operators["attention"].bytes_hbm
    assert read == pytest.approx(4 * 32 * 1001 * 40)


def test_a_window_bounds_what_is_seen():
    narrow, wide = work(model(GQA, windows=(16,))), work(model(GQA))
    for prefill in (False, True):
        queries = 256.0 if prefill else 1.0
        near = step(narrow, batch(8.0, queries, 512.0, prefill=prefill), PRIORS).operators["attention"]
        far = step(wide, batch(8.0, queries, 512.0, prefill=prefill), PRIORS).operators["attention"]
        assert np.all(near.flops < far.flops)
        assert np.all(near.seconds <= far.seconds)


def test_prompts_see_half_of_themselves():
    flops = step(work(), batch(1.0, 100.0, 0.0, prefill=True), PRIORS).operators["attention"].flops
    assert flops == pytest.approx(4 * 2 * 8 * (16 + 8 + 16) * 100 * 50)


def test_a_dense_model_has_no_experts():
    operators = step(work(model(moe_layers=0)), batch(4.0), PRIORS).operators
    assert np.all(operators["routed experts"].seconds == 0)
    assert np.all(operators["dense feed-forward"].seconds > 0)


def test_one_rank_says_nothing_to_others():
    operators = step(work(), batch(4.0), PRIORS).operators
    for name in ("attention all-reduce", "expert exchange", "dense all-reduce"):
        assert np.all(operators[name].seconds == 0)


def test_tensor_parallel_ranks_share_the_work_and_add_up():
    alone, shared = work(), work(ranks=8.0, tp=8.0)
    one, eight = (step(each, batch(512.0), PRIORS).operators for each in (alone, shared))
    assert np.all(eight["attention projections"].seconds < one["attention projections"].seconds)
    assert np.all(eight["routed experts"].bytes_hbm == pytest.approx(one["routed experts"].bytes_hbm / 8))
    assert np.all(eight["attention all-reduce"].seconds > 0)


def test_spread_experts_are_sent_or_gathered_whichever_is_faster():
    wide = work(systems=("gb200-nvl72",), ranks=[8.0, 32.0, 72.0], ep=[8.0, 32.0, 72.0], slots=72.0)
    moved = step(wide, batch([8 * 128.0, 32 * 128.0, 72 * 128.0]), PRIORS).operators["expert exchange"]
    assert np.all(moved.seconds > 0)
    inside = work(systems=("hgx-h200",), ranks=8.0, ep=8.0)
    across = work(systems=("hgx-h200",), ranks=16.0, ep=16.0)
    near, far = (
        step(each, batch(each.layouts.ranks * 128.0), PRIORS).operators["expert exchange"]
        for each in (inside, across)
    )
    assert np.all(far.seconds > near.seconds)


def test_gathering_serves_experts_that_are_not_spread():
    split = work(ranks=8.0, tp=1.0, ep=1.0)
    assert np.all(step(split, batch(64.0), PRIORS).operators["expert exchange"].seconds > 0)


def test_more_slots_than_experts_are_held_not_streamed_twice():
    plain, redundant = work(ranks=8.0, ep=8.0), work(ranks=8.0, ep=8.0, slots=24.0)
    one, two = (step(each, batch(4096.0), PRIORS).operators["routed experts"] for each in (plain, redundant))
    assert np.all(two.bytes_hbm >= one.bytes_hbm)
    assert np.all(two.flops == one.flops)


@given(
    st.floats(1, 5000),
    st.floats(1, 2),
    st.sampled_from([(1, 1, 1), (8, 8, 1), (8, 8, 8), (8, 1, 8), (8, 2, 8)]),
)
def test_more_sequences_never_take_less(sequences, more, sizes):
    ranks, tp, ep = map(float, sizes)
    group = work(ranks=ranks, tp=tp, ep=ep)
    pair = batch(np.array([sequences, sequences * more]))
    first, second = step(group, pair, PRIORS).total.seconds[0]
    assert second >= first * (1 - 1e-3)  # touched experts come from a table


@given(st.floats(1, 3))
def test_a_faster_chip_is_never_slower(factor):
    group = work(ranks=8.0, tp=8.0)
    faster = dataclasses.replace(
        group,
        chips=dataclasses.replace(
            group.chips,
            tensor_flops=group.chips.tensor_flops * factor,
            hbm_bytes_per_s=group.chips.hbm_bytes_per_s * factor,
        ),
    )
    slow, fast = (step(each, batch(64.0), PRIORS).total.seconds for each in (group, faster))
    assert np.all(fast <= slow)


def test_rows_and_draws_are_computed_at_once_as_one_by_one():
    centre, spread = prior_centre_and_spread(all_names())
    logs = centre + spread * np.random.default_rng(0).standard_normal((3, len(centre))) * 0.3
    groups = work(systems=("hgx-h200", "hgx-b200"), ranks=8.0, tp=8.0, recipe=-1)
    together = step(groups, batch([64.0, 64.0]), Parameters(names=all_names(), moved=logs)).total.seconds
    for draw in range(3):
        for row, system in enumerate(("hgx-h200", "hgx-b200")):
            one = work(systems=(system,), ranks=8.0, tp=8.0, recipe=-1)
            alone = step(one, batch(64.0), Parameters(names=all_names(), moved=logs[[draw]])).total.seconds
            assert together[draw, row] == pytest.approx(alone[0, 0])


def test_without_graphs_the_host_launches_every_kernel():
    captured = work(ranks=8.0, tp=8.0)
    eager = dataclasses.replace(captured, graphs=False)
    launched, replayed = (
        step(each, batch(8.0), PRIORS).operators["kernel launches"].seconds for each in (eager, captured)
    )
    assert np.all(launched == pytest.approx(4 * PRIORS["eager_launches"]))
    assert np.all(launched > 5 * replayed)


def test_two_micro_batches_are_two_steps_that_hide_exchanges_under_each_other():
    layout = {"ranks": 32.0, "ep": 32.0, "slots": 32.0, "systems": ("gb200-nvl72",)}
    one, two = work(**layout), work(**layout, micro_batches=2.0)
    half, both = (
        step(one, batch(32 * 256.0), PRIORS).operators,
        step(two, batch(32 * 512.0), PRIORS).operators,
    )
    for name in ("attention projections", "attention", "routed experts", "head"):
        assert both[name].seconds == pytest.approx(2 * half[name].seconds)
    computed = sum(both[name].seconds for name in COMPUTING)
    exchanged = 2 * half[EXCHANGE].seconds
    hidden = PRIORS["overlap"] * np.minimum(exchanged, computed)
    assert both[EXCHANGE].seconds == pytest.approx(exchanged - hidden)
    assert both[EXCHANGE].bytes_link == pytest.approx(2 * half[EXCHANGE].bytes_link)


def test_energy_is_design_power_over_the_time():
    total = step(work(), batch(8.0), PRIORS).total
    assert total.joules == pytest.approx(700 * total.seconds)
