"""One layer's placement from nothing but its loads.

Three steps: hand the spare slots one by one to the expert with the heaviest copy; lay the copies out, the
heaviest first, each on the lightest rank with room; then relieve the heaviest rank step by step. The first
two are the published method: deepseek-ai/EPLB, replicate_experts and balanced_packing.
"""

from heapq import heapify, heappop, heappush

import numpy as np

from rackscale.policy.expert_placement.draft import Draft, recount, swap
from rackscale.policy.expert_placement.even import even_experts, separated
from rackscale.policy.expert_placement.placement import Ints, Loads

EVEN_ENOUGH = 1e-4  # above the mean: no step's time shows it, so the search ends there
FEW_SLOTS = 64  # with no more a second search, from the even placement, is cheap and often finds better


def fresh_draft(load_E: Loads, num_ranks: int, slots_per_rank: int) -> Draft:
    """The best one found; never worse than the even placement. Needs R * S >= E >= S."""
    copies_E = _replicated(load_E, num_ranks * slots_per_rank, num_ranks)
    packed_RS = _packed(load_E, copies_E, num_ranks, slots_per_rank)
    even_RS = even_experts(len(load_E), num_ranks, slots_per_rank)
    starts = sorted((Draft(rows_RS, load_E) for rows_RS in (packed_RS, even_RS)), key=_heaviest)
    drafts = starts if packed_RS.size <= FEW_SLOTS else starts[:1]
    for draft in drafts:
        draft.improve(float(load_E.sum()) / num_ranks * (1 + EVEN_ENOUGH), swap, recount)
    return min(drafts, key=_heaviest)


def _heaviest(draft: Draft) -> float:
    return draft.heaviest


def _replicated(load_E: Loads, num_slots: int, num_ranks: int) -> Ints:
    """How many copies each gets, at most one a rank."""
    copies_E = np.ones(len(load_E), dtype=np.int32)
    heaviest = [(-load, 1, expert) for expert, load in enumerate(load_E.tolist())]
    heapify(heaviest)
    for _ in range(num_slots - len(load_E)):
        _, copies, expert = heappop(heaviest)
        copies_E[expert] = copies + 1
        if copies + 1 < num_ranks:
            heappush(heaviest, (-float(load_E[expert]) / (copies + 1), copies + 1, expert))
    return copies_E


def _packed(load_E: Loads, copies_E: Ints, num_ranks: int, slots_per_rank: int) -> Ints:
    """Which copies each rank gets; those of one expert go to different ranks as long as these have room."""
    share_E = load_E / copies_E
    rows: list[list[int]] = [[] for _ in range(num_ranks)]
    lightest = [(0.0, rank) for rank in range(num_ranks)]
    for expert in np.argsort(-share_E, kind="stable").tolist():
        holders: list[tuple[float, int]] = []
        for _ in range(copies_E[expert]):
            if not lightest:  # all that have room hold it already: separated mends that
                lightest, holders = sorted(holders), []
            load, rank = heappop(lightest)
            rows[rank].append(expert)
            if len(rows[rank]) < slots_per_rank:
                holders.append((load + float(share_E[expert]), rank))
        for holder in holders:
            heappush(lightest, holder)
    return separated(np.array(rows, dtype=np.int32))
