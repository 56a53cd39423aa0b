import json
from itertools import combinations, combinations_with_replacement
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rackscale.core import CapacityError, SpecError
from rackscale.policy import (
    ExpertLoads,
    Placement,
    choose_redundant_experts,
    even_placement,
    moves,
    place_experts,
    rebalance_pays,
)
from rackscale.policy.expert_placement.draft import Draft, recount, swap
from rackscale.policy.expert_placement.even import separated
from rackscale.policy.expert_placement.place import BALANCE_TOLERANCE

GOLDEN = Path(__file__).parents[1] / "golden" / "eplb"
CASES = [json.loads(path.read_text()) for path in sorted(GOLDEN.glob("*.json"))]
TOLERATED = 1 + BALANCE_TOLERANCE + 1e-9


def zipf(num_experts, exponent, num_layers=1, seed=0):
    """Loads like those of a skewed router, each layer in an order of its own, no two experts alike."""
    rng = np.random.default_rng(seed)
    ranked = 1e6 / np.arange(1, num_experts + 1) ** exponent
    return np.stack([rng.permutation(ranked) for _ in range(num_layers)])


def drifted(loads, spread, seed=1):
    return loads * np.random.default_rng(seed).lognormal(0, spread, np.shape(loads))


def check(placement, loads):
    """What holds of every placement."""
    num_layers, num_experts = np.shape(loads)
    assert placement.logical.dtype == placement.replicas.dtype == np.int32
    assert (placement.num_layers, placement.num_experts) == (num_layers, num_experts)
    for row, copies in zip(placement.logical, placement.replicas, strict=True):
        assert np.bincount(row, minlength=num_experts).tolist() == copies.tolist()
    assert placement.replicas.min() >= 1
    assert placement.rank_of_slot.tolist() == sorted(
        list(range(placement.num_ranks)) * placement.slots_per_rank
    )
    on_ranks = placement.holds().sum(axis=2)
    assert (on_ranks == min(placement.slots_per_rank, num_experts)).all(), "a rank holds an expert twice"
    np.testing.assert_allclose(placement.imbalance_of(loads), placement.imbalance)


def domains_of_groups(placement, num_groups, num_domains):
    """How many domains a group's copies are in, meant over groups and layers."""
    held = placement.holds().reshape(
        placement.num_layers, num_domains, -1, num_groups, placement.num_experts // num_groups
    )
    return held.any(axis=(2, 4)).sum(axis=1).mean()


@st.composite
def problems(draw):
    """(loads, slots, ranks)."""
    num_layers, num_experts = draw(st.integers(1, 2)), draw(st.integers(1, 12))
    ranks = draw(st.integers(1, 10))
    slots_per_rank = draw(st.integers(-(-num_experts // ranks), num_experts + 1))
    loads = st.lists(st.integers(0, 1000), min_size=num_experts, max_size=num_experts)
    return np.array([draw(loads) for _ in range(num_layers)]), slots_per_rank * ranks, ranks


# --- beside the published balancer


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
@pytest.mark.parametrize("grouped", [False, True])
def test_no_layer_is_less_balanced_than_the_published_balancers(case, grouped):
    loads, slots, ranks = case["weights"], case["num_replicas"], case["num_gpus"]
    parts = (case["num_groups"], case["num_nodes"]) if grouped else ()
    placement = place_experts(loads, slots, ranks, *parts)
    check(placement, loads)
    published = Placement.of(case["phy2log"], loads, num_ranks=ranks).imbalance
    np.testing.assert_allclose(published, [layer["max_over_mean"] for layer in case["per_layer"]])
    assert (placement.imbalance <= published + 1e-9).all()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_tables_for_dispatch_are_those_of_the_published_maps(case):
    placement = Placement.of(case["phy2log"], case["weights"], num_ranks=case["num_gpus"])
    assert placement.replicas.tolist() == case["logcnt"]
    ranks, counts = placement.ranks_of()
    assert ranks.dtype == counts.dtype == np.int32
    for layer, experts in enumerate(case["log2phy"]):
        for expert, slots in enumerate(experts):
            holders = sorted({slot // placement.slots_per_rank for slot in slots if slot >= 0})
            count = counts[layer, expert]
            assert ranks[layer, expert, :count].tolist() == holders
            assert (ranks[layer, expert, count:] == -1).all()


# --- balance


@given(problems())
@settings(deadline=None)
def test_every_placement_is_whole_and_no_worse_than_the_even_one(problem):
    loads, slots, ranks = problem
    placement = place_experts(*problem)
    check(placement, loads)
    even = even_placement(*loads.shape, ranks, slots // ranks)
    assert (placement.imbalance <= even.imbalance_of(loads) + 1e-9).all()
    again = place_experts(*problem)
    assert (again.logical == placement.logical).all()


@given(problems(), st.integers(0, 99))
@settings(deadline=None)
def test_a_placement_from_another_is_whole_and_about_as_balanced(problem, seed):
    loads, slots, ranks = problem
    current = place_experts(drifted(loads, 1.0, seed), slots, ranks)
    placement = place_experts(loads, slots, ranks, current=current)
    check(placement, loads)
    fresh = place_experts(*problem)
    assert (placement.imbalance <= fresh.imbalance * TOLERATED).all()
    assert len(moves(current, placement)) <= slots * len(loads)
    assert (place_experts(loads, slots, ranks, current=current).logical == placement.logical).all()


def best_balance(load, slots, ranks):
    """Max/mean of the best of all placements."""
    num_experts, best = len(load), np.inf
    rows = list(combinations(range(num_experts), slots // ranks))
    for choice in combinations_with_replacement(rows, ranks):
        copies = np.bincount(np.ravel(choice), minlength=num_experts)
        if copies.all():
            best = min(best, max((load / copies)[list(row)].sum() for row in choice))
    return best * ranks / load.sum()


@pytest.mark.parametrize(
    ("num_experts", "slots", "ranks"), [(3, 4, 2), (4, 6, 2), (4, 6, 3), (5, 6, 3), (5, 8, 2), (5, 9, 3)]
)
def test_tiny_cases_are_near_the_best_there_is(num_experts, slots, ranks):
    over = []
    for seed in range(20):
        load = np.random.default_rng(seed).lognormal(0, 1, num_experts)
        best = best_balance(load, slots, ranks)
        over.append(place_experts([load], slots, ranks).imbalance[0] / best)
    assert min(over) > 1 - 1e-9
    assert max(over) < 1.2
    assert np.mean(over) < 1.05


def test_one_slot_a_rank_under_extreme_skew():
    loads = zipf(64, 1.2, num_layers=2)
    placement = place_experts(loads, 72, 72)
    check(placement, loads)
    # Whole experts cannot be lighter than this: the best split of 8 spare slots among the hottest.
    shares = sorted((load / copies for load in loads[0] for copies in range(1, 10)), reverse=True)
    least = min(share for share in shares if np.ceil(loads[0] / share - 1e-9).sum() <= 72)
    np.testing.assert_allclose(placement.imbalance, least * 72 / loads[0].sum())


def test_an_expert_with_nearly_all_load_gets_all_spare_slots():
    loads = np.ones((1, 64))
    loads[0, 17] = 0.9 / 0.1 * 63
    placement = place_experts(loads, 72, 72)
    assert placement.replicas[0, 17] == 9
    assert placement.imbalance[0] == pytest.approx(0.9 / 9 * 72)
    roomy = place_experts(loads, 16 * 5, 16)
    assert roomy.replicas[0, 17] == 16
    assert roomy.imbalance[0] < 1.01


def test_a_layer_without_load_counts_as_even():
    placement = place_experts(np.zeros((1, 8)), 8, 4)
    assert placement.imbalance.tolist() == [1.0]
    assert placement.rank_loads(np.zeros((1, 8))).tolist() == [[0.0] * 4]
    assert placement.imbalance_of(np.zeros((1, 8))).tolist() == [1.0]


def test_ranks_with_more_slots_than_experts_hold_all_of_them():
    placement = place_experts([[5, 1]], 9, 3)
    assert placement.imbalance.tolist() == [1.0]
    ranks, counts = placement.ranks_of()
    assert ranks.tolist() == [[[0, 1, 2], [0, 1, 2]]]
    assert counts.tolist() == [[3, 3]]
    assert len(moves(placement, place_experts([[1, 5]], 9, 3, current=placement))) == 0


def test_a_load_is_split_evenly_over_its_copies():
    placement = Placement.of([[0, 1, 0, 2]], [[6, 1, 2]], num_ranks=2)
    assert placement.rank_loads([[6, 1, 2]]).tolist() == [[4.0, 5.0]]
    assert placement.imbalance.tolist() == [pytest.approx(5 / 4.5)]


def test_doubles_are_exchanged_when_all_ranks_with_room_hold_the_expert():
    assert separated(np.array([[0, 0, 1], [2, 1, 3]], dtype=np.int32)).tolist() == [[2, 0, 1], [0, 1, 3]]


def test_copies_that_find_all_ranks_with_room_taken_still_come_apart():
    check(place_experts([[3, 0, 0, 0]], 9, 3), [[3, 0, 0, 0]])


# --- groups in domains


def test_groups_stay_in_their_domain_where_that_costs_nothing():
    loads = drifted(np.ones((4, 64)), 0.1)
    together = place_experts(loads, 72, 8, groups=8, domains=2)
    free = place_experts(loads, 72, 8)
    check(together, loads)
    assert (together.imbalance <= free.imbalance * TOLERATED).all()
    assert domains_of_groups(together, 8, 2) < 1.2 < domains_of_groups(free, 8, 2)


def test_groups_are_split_where_keeping_them_would_cost_balance():
    loads = drifted(np.ones((2, 64)), 0.1)
    loads[:, :8] *= 30
    together = place_experts(loads, 72, 8, groups=8, domains=2)
    check(together, loads)
    assert (together.imbalance <= place_experts(loads, 72, 8).imbalance * TOLERATED).all()
    assert domains_of_groups(together, 8, 2) > 1


def test_groups_are_no_concern_where_domains_do_not_divide_them():
    loads = zipf(64, 0.8)
    free = place_experts(loads, 72, 12)
    assert (place_experts(loads, 72, 12, groups=8, domains=3).logical == free.logical).all()


def test_groups_stay_in_their_domain_when_loads_drift():
    loads = drifted(np.ones((4, 64)), 0.1)
    current = place_experts(loads, 72, 8, groups=8, domains=2)
    later = drifted(loads, 0.05, seed=7)
    placement = place_experts(later, 72, 8, groups=8, domains=2, current=current)
    assert domains_of_groups(placement, 8, 2) < 1.5
    assert len(moves(current, placement)) < len(moves(current, place_experts(later, 72, 8, 8, 2))) / 4


# --- fewest moves


@pytest.mark.parametrize(("num_experts", "slots", "ranks"), [(64, 72, 8), (128, 144, 16), (64, 80, 80)])
def test_equal_loads_move_nothing(num_experts, slots, ranks):
    loads = zipf(num_experts, 1.0, num_layers=2)
    current = place_experts(loads, slots, ranks)
    same = place_experts(loads * 3, slots, ranks, current=current)
    assert (same.logical == current.logical).all()
    assert moves(current, same).shape == (0, 3)


@pytest.mark.parametrize(("num_experts", "slots", "ranks"), [(64, 72, 8), (128, 144, 16), (64, 80, 80)])
def test_a_small_drift_moves_far_fewer_than_a_fresh_start(num_experts, slots, ranks):
    loads = zipf(num_experts, 0.8, num_layers=4)
    current, later = place_experts(loads, slots, ranks), drifted(loads, 0.05)
    fresh, kept = place_experts(later, slots, ranks), place_experts(later, slots, ranks, current=current)
    check(kept, later)
    assert (kept.imbalance <= fresh.imbalance * TOLERATED).all()
    assert 0 < len(moves(current, kept)) < len(moves(current, fresh)) / 4


def test_what_stays_on_a_rank_stays_in_its_slot():
    loads = zipf(64, 1.0, num_layers=3)
    current = place_experts(loads, 72, 8)
    placement = place_experts(drifted(loads, 1.0), 72, 8, current=current)
    loaded = moves(current, placement)
    changed = np.argwhere(current.logical != placement.logical)
    assert loaded[:, :2].tolist() == changed.tolist()
    assert (placement.logical[loaded[:, 0], loaded[:, 1]] == loaded[:, 2]).all()


def test_moves_ask_for_what_a_rank_does_not_hold_in_any_slot():
    old = Placement.of([[0, 1, 2, 3]], np.ones((1, 4)), num_ranks=2)
    new = Placement.of([[1, 2, 0, 3]], np.ones((1, 4)), num_ranks=2)
    assert moves(old, new).tolist() == [[0, 1, 2], [0, 2, 0]]
    assert moves(old, new).dtype == np.int32


def test_a_current_placement_with_doubles_is_left():
    current = Placement.of([[0, 0, 1, 2, 3, 3]], np.ones((1, 4)), num_ranks=2)
    loads = [[4, 3, 2, 1]]
    placement = place_experts(loads, 6, 2, current=current)
    check(placement, loads)
    assert len(moves(current, placement)) == (current.logical != placement.logical).sum()
    assert placement.logical[0, [0, 2, 4]].tolist() == [0, 1, 3]


# --- the start


@pytest.mark.parametrize(
    ("num_experts", "num_ranks", "slots_per_rank"),
    [(64, 3, 22), (8, 3, 3), (4, 8, 1), (3, 8, 1), (128, 16, 9), (5, 7, 3), (6, 2, 6), (1, 1, 1)],
)
def test_the_start_is_whole_and_even(num_experts, num_ranks, slots_per_rank):
    placement = even_placement(2, num_experts, num_ranks, slots_per_rank)
    check(placement, np.ones((2, num_experts)))
    assert np.ptp(placement.replicas) <= 1
    assert placement.imbalance.max() <= np.ceil(num_experts / num_ranks) * num_ranks / num_experts


def test_the_start_keeps_experts_in_order():
    assert even_placement(1, 8, 2, 4).logical.tolist() == [list(range(8))]
    assert even_placement(1, 8, 2, 5).experts_of_ranks.tolist() == [[[0, 1, 2, 3, 4], [4, 5, 6, 7, 0]]]
    assert even_placement(1, 128, 16, 9).imbalance.tolist() == [1.0]


@given(st.integers(1, 20), st.integers(1, 12), st.integers(0, 25))
def test_any_start_is_whole(num_experts, num_ranks, spare):
    slots_per_rank = -(-num_experts // num_ranks) + spare
    check(even_placement(1, num_experts, num_ranks, slots_per_rank), np.ones((1, num_experts)))


# --- steps


@given(problems(), st.integers(0, 99))
@settings(deadline=None)
def test_every_step_relieves_the_heaviest_rank(problem, seed):
    loads, slots, ranks = problem
    start = place_experts(drifted(loads + 1.0, 1.0, seed), slots, ranks)
    if start.slots_per_rank > start.num_experts:
        return
    for find in (swap, recount):
        draft = Draft(start.experts_of_ranks[0], loads[0] + 1.0)
        before = np.sort(draft.load_R)[::-1]
        if ranks > 1 and (step := find(draft)):
            for rank, slot, expert in step:
                draft.experts_RS[rank, slot] = expert
            after = np.sort(Draft(draft.experts_RS, draft.load_E).load_R)[::-1]
            first = int(np.argmax(~np.isclose(before, after, rtol=1e-13)))
            assert after[first] < before[first]


# --- what it is worth


def test_redundant_experts_are_bought_while_they_gain():
    loads = zipf(64, 0.8, num_layers=4)
    chosen = choose_redundant_experts(loads, 8, expert_bytes=10, memory_bytes=10**9)
    assert chosen > 0
    assert (64 + chosen) % 8 == 0
    fewer = place_experts(loads, 64 + chosen - 8, 8).imbalance.mean()
    enough = place_experts(loads, 64 + chosen, 8).imbalance.mean()
    more = place_experts(loads, 64 + chosen + 8, 8).imbalance.mean()
    assert fewer - enough >= 0.01 > enough - more


def test_redundant_experts_stop_at_memory_and_at_every_expert_everywhere():
    loads = zipf(64, 1.2, num_layers=4)
    assert choose_redundant_experts(loads, 8, expert_bytes=10, memory_bytes=9 * 4 * 10) == 8
    assert choose_redundant_experts(loads, 8, expert_bytes=10, memory_bytes=9 * 4 * 10 - 1) == 0
    assert choose_redundant_experts([[9, 1]], 2, expert_bytes=1, memory_bytes=99, min_gain=0) == 2
    assert choose_redundant_experts(np.ones((1, 8)), 3, expert_bytes=1, memory_bytes=99, min_gain=0.2) == 1


def test_even_one_copy_of_each_needs_memory():
    with pytest.raises(CapacityError, match="320 bytes of experts a rank, 319 free: take more ranks"):
        choose_redundant_experts(np.ones((4, 64)), 8, expert_bytes=10, memory_bytes=319)


def test_a_rebalance_pays_when_the_steps_to_come_gain_more_than_the_moves_take():
    def pays(current=1.5, num_moves=100, horizon_steps=1000):
        # Each step gains 20 ms * 0.5 * (1.5 - 1.1) = 4 ms, each move takes 10 ms.
        return rebalance_pays(
            current=current,
            proposed=1.1,
            num_moves=num_moves,
            seconds_per_step=0.02,
            balanced_share=0.5,
            seconds_per_move=0.01,
            horizon_steps=horizon_steps,
        )

    assert pays()
    assert not pays(num_moves=401)
    assert not pays(horizon_steps=249)
    assert not pays(current=1.1, num_moves=0)


# --- loads


def test_loads_fade():
    gathered = ExpertLoads(2, 3, half_life_steps=2)
    gathered.add(np.array([4, 0, 0, 0, 0, 8], dtype=np.int32))
    first = gathered.loads
    for _ in range(2):
        gathered.add(np.array([0, 1, 0, 0, 0, 0], dtype=np.int32))
    np.testing.assert_allclose(gathered.loads, [[2, 1 + 0.5**0.5, 0], [0, 0, 4]])
    assert gathered.num_steps == 3
    assert first.tolist() == [[4, 0, 0], [0, 0, 8]]
    assert first.dtype == np.float64


# --- errors


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: place_experts([1, 2], 2, 1), "these are no loads: a row a layer"),
        (lambda: place_experts(np.ones((0, 2)), 2, 1), "are no loads"),
        (lambda: place_experts([[1, -1]], 2, 1), "no loads: a row"),
        (lambda: place_experts([[1, np.inf]], 2, 1), "these are no"),
        (lambda: place_experts([[1, 2, 3]], 4, 3), "4 slots on 3 ranks: give every rank the same"),
        (lambda: place_experts([[1, 2, 3]], 4, 0), "4 slots on 0 ranks"),
        (lambda: place_experts([[1, 2, 3]], 2, 2), "2 slots for 3 experts: at least 2 slots a rank"),
        (lambda: place_experts([[1, 2, 3]], 4, 2, groups=2), "3 experts in 2 groups: the number of groups"),
        (lambda: place_experts([[1, 2]], 3, 3, groups=2, domains=2), "3 ranks in 2 domains"),
        (lambda: place_experts([[1, 2]], 2, 2, domains=0), "2 ranks in 0 domains"),
        (lambda: place_experts([[1, 2]], 4, 2, current=even_placement(1, 2, 2, 1)), "another shape"),
        (lambda: even_placement(1, 4, 3, 1), "3 slots for 4 experts"),
        (lambda: Placement.of([[0, 0]], [[1, 1]], 1), "do not hold the experts that have loads: name each"),
        (lambda: Placement.of([[0, 2]], [[1, 1]], 1), "do not hold the experts"),
        (lambda: even_placement(1, 2, 2, 1).rank_loads([[1, 2, 3]]), "1 layers of 2 experts are placed"),
        (lambda: moves(even_placement(1, 2, 2, 1), even_placement(1, 2, 1, 2)), "of different shape"),
        (lambda: ExpertLoads(1, 1, 0), "a half-life of 0 steps: give one above 0"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_does_not_fit_is_refused(call, message):
    with pytest.raises(SpecError, match=message):
        call()
