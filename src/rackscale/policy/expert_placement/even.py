"""The start, before anything is measured: experts in order, spare slots filled with copies of them evenly."""

from itertools import pairwise

import numpy as np

from rackscale.policy.expert_placement.placement import Ints, Placement, check_slots


def even_placement(num_layers: int, num_experts: int, num_ranks: int, slots_per_rank: int) -> Placement:
    """Every rank holds its part of the experts, in order, and then copies of experts of other ranks.

    The parts differ by at most one expert, and the copies of any two experts by at most one. Its imbalance is
    that of equal loads. Raises SpecError if there are fewer slots than experts.
    """
    check_slots(num_ranks * slots_per_rank, num_experts, num_ranks)
    experts_N = even_experts(num_experts, num_ranks, slots_per_rank).ravel()
    return Placement.of(
        np.tile(experts_N, (num_layers, 1)), np.ones((num_layers, num_experts)), num_ranks=num_ranks
    )


def even_experts(num_experts: int, num_ranks: int, slots_per_rank: int) -> Ints:
    """[R, S]: one layer of it."""
    if slots_per_rank > num_experts:  # every rank holds all, and again from the first
        return np.tile(np.arange(slots_per_rank, dtype=np.int32) % num_experts, (num_ranks, 1))
    ends = [rank * num_experts // num_ranks for rank in range(num_ranks + 1)]
    copies = iter(_copies(num_experts, num_ranks * slots_per_rank - num_experts))
    rows = [list(range(start, end)) for start, end in pairwise(ends)]
    for row in rows:
        row.extend(next(copies) for _ in range(slots_per_rank - len(row)))
    return separated(np.array(rows, dtype=np.int32))


def _copies(num_experts: int, count: int) -> list[int]:
    """So many experts, each as often as any other but for one, from the middle on: far from their rank."""
    rounds, rest = divmod(count, num_experts)
    in_order = list(range(num_experts)) * rounds + [i * num_experts // rest for i in range(rest)]
    return [(num_experts // 2 + expert) % num_experts for expert in in_order]


def separated(experts_RS: Ints) -> Ints:
    """The same copies, but no rank with two of one expert: they are exchanged with other ranks.

    Needs S <= E and at most R copies of each. Take the rank with the fewest different experts, d. One without
    its doubled expert has at least d others, so one that the rank lacks: the exchange undoes a double and
    makes none.
    """
    experts_RS = experts_RS.copy()
    while (doubles_R := doubles(experts_RS)).any():
        rank = int(doubles_R.argmax())
        counts_E = np.bincount(experts_RS[rank])
        expert = int(counts_E.argmax())
        other = int((experts_RS == expert).any(axis=1).argmin())
        slot = int(np.isin(experts_RS[other], experts_RS[rank]).argmin())
        mine = int((experts_RS[rank] == expert).argmax())
        experts_RS[rank, mine], experts_RS[other, slot] = experts_RS[other, slot], expert
    return experts_RS


def doubles(experts_RS: Ints) -> Ints:
    """How many slots of each rank hold what another of its slots holds."""
    sorted_RS = np.sort(experts_RS, axis=1)
    doubles_R: Ints = (sorted_RS[:, 1:] == sorted_RS[:, :-1]).sum(axis=1, dtype=np.int32)
    return doubles_R
