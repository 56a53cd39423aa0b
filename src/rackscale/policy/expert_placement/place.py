"""From measured loads to a placement.

Each layer is made from nothing first (see fresh), as balanced as can be. Two wishes then bend it, each within
BALANCE_TOLERANCE of that. Where tokens choose among groups of experts, a group's copies stay inside one
domain, so that a token goes to few domains. And where there is a placement already, the ranks should have
little to load.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rackscale.core import SpecError
from rackscale.policy.expert_placement.draft import Draft, recount, swap
from rackscale.policy.expert_placement.even import doubles, even_experts
from rackscale.policy.expert_placement.fresh import fresh_draft
from rackscale.policy.expert_placement.moves import kept_in_place, num_loads, renamed
from rackscale.policy.expert_placement.placement import (
    Ints,
    Loads,
    Placement,
    check_slots,
    measured,
)

BALANCE_TOLERANCE = 0.01  # of the heaviest rank's load: less than loads wander from one minute to the next


@dataclass(frozen=True, kw_only=True, slots=True)
class _Shape:
    num_ranks: int
    slots_per_rank: int
    num_groups: int
    num_domains: int  # 1 if the groups are not to be kept in domains


def place_experts(
    loads: npt.ArrayLike,
    slots: int,
    ranks: int,
    groups: int = 1,
    domains: int = 1,
    current: Placement | None = None,
) -> Placement:
    """Give the experts asked for most more copies, and every rank about the same load.

    loads: [layers, experts], >= 0, in any unit; a layer of zeros counts as evenly loaded.
    slots: of all ranks together; every rank gets the same number.
    groups: the experts' groups in order, of equal size, of which a token chooses few.
    domains: the ranks' domains in order, of equal size, in which ranks reach each other best. Where domains
      divide groups, a group's copies share a domain as far as that costs no more than BALANCE_TOLERANCE.
    current: what the ranks hold now. Of the placements found within BALANCE_TOLERANCE of the best, the one
      with the fewest loads is taken, and what stays on a rank stays in its slot.

    Equal arguments give equal placements. No rank holds an expert twice unless it has more slots than there
    are experts. Without domains and current the balance is at least that of even_placement.
    Raises SpecError for loads, or counts of slots, groups or domains, that do not fit together.
    Source: replication and packing as in deepseek-ai/EPLB, replicate_experts and balanced_packing.
    """
    load_LE = measured(loads)
    num_layers, num_experts = load_LE.shape
    check_slots(slots, num_experts, ranks)
    _check_parts(num_experts, groups, "experts", "groups")
    _check_parts(ranks, domains, "ranks", "domains")
    if current is not None:
        _check_current(current, (num_layers, slots), (num_experts, ranks))
    if slots > num_experts * ranks:
        row_N = even_experts(num_experts, ranks, slots // ranks).ravel()
        return Placement.of(np.tile(row_N, (num_layers, 1)), load_LE, num_ranks=ranks)
    fits = groups % domains == 0 and slots // ranks <= num_experts // domains
    shape = _Shape(
        num_ranks=ranks,
        slots_per_rank=slots // ranks,
        num_groups=groups,
        num_domains=domains if fits else 1,
    )
    if current is None:
        rows = [_fresh_layer(load_E, shape).experts_RS for load_E in load_LE]
    else:
        rows = [_next_layer(*layer, shape) for layer in zip(load_LE, current.experts_of_ranks, strict=True)]
    return Placement.of(np.stack(rows).reshape(num_layers, slots), load_LE, num_ranks=ranks)


def _check_parts(whole: int, parts: int, of: str, name: str) -> None:
    if parts < 1 or whole % parts:
        raise SpecError(f"{whole} {of} in {parts} {name}", hint=f"the number of {name} divides the {of}")


def _check_current(current: Placement, logical: tuple[int, int], counts: tuple[int, int]) -> None:
    if current.logical.shape != logical or (current.num_experts, current.num_ranks) != counts:
        raise SpecError("the current placement has another shape", hint="leave it out, and load all anew")


def _next_layer(load_E: Loads, current_RS: Ints, shape: _Shape) -> Ints:
    """The current placement mended or the fresh one: the fewer loads for about the same balance."""
    fresh = _fresh_layer(load_E, shape)
    drafts = [Draft(renamed(current_RS, fresh.experts_RS, shape.num_domains), load_E)]
    if not doubles(current_RS).any():
        mended = Draft(current_RS, load_E, shape.num_domains)
        mended.improve(_about(fresh.heaviest), recount, swap)
        drafts.append(mended)
    limit = _about(min(draft.heaviest for draft in drafts))
    balanced = [draft.experts_RS for draft in drafts if draft.heaviest <= limit]
    return kept_in_place(current_RS, min(balanced, key=lambda rows_RS: num_loads(current_RS, rows_RS)))


def _about(load: float) -> float:
    return load * (1 + BALANCE_TOLERANCE)


def _fresh_layer(load_E: Loads, shape: _Shape) -> Draft:
    """From nothing: with the groups in domains, or loosened a little, or else without regard to groups."""
    free = fresh_draft(load_E, shape.num_ranks, shape.slots_per_rank)
    if shape.num_domains == 1:
        return free
    grouped = Draft(_grouped(load_E, shape), load_E, shape.num_domains)
    grouped.improve(_about(free.heaviest), swap, recount)
    return grouped if grouped.heaviest <= _about(free.heaviest) else free


def _grouped(load_E: Loads, shape: _Shape) -> Ints:
    """Each domain gets as many whole groups as any other, and is then placed by itself."""
    load_GE = load_E.reshape(shape.num_groups, -1)
    expert_GE = np.arange(load_E.size, dtype=np.int32).reshape(load_GE.shape)
    groups_a_domain = shape.num_groups // shape.num_domains
    ranks_a_domain = shape.num_ranks // shape.num_domains
    domains = []
    for groups in fresh_draft(load_GE.sum(axis=1), shape.num_domains, groups_a_domain).experts_RS:
        placed = fresh_draft(load_GE[groups].ravel(), ranks_a_domain, shape.slots_per_rank)
        domains.append(expert_GE[groups].ravel()[placed.experts_RS])
    return np.concatenate(domains)
