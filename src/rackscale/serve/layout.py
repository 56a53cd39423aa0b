"""Which host has which ranks."""

from collections.abc import Mapping, Sequence

from rackscale.core import GroupId, RankId, SpecError
from rackscale.specs import GroupSpec


def assign(
    groups: Sequence[GroupSpec], capacities: Mapping[str, int | None]
) -> dict[str, tuple[tuple[GroupId, RankId], ...]]:
    """Every rank to a host: groups in order, hosts in order of their names, each with about the same number
    of ranks. capacities: how many ranks a host may have; None: any number.

    With as many groups as hosts each host has one; a group that is wider than a host goes over several.
    Raises SpecError where the hosts have no room for all.
    """
    ranks = [
        (GroupId(number), RankId(rank))
        for number, group in enumerate(groups)
        for rank in range(group.num_ranks)
    ]
    names = sorted(capacities)
    free = {name: len(ranks) if capacities[name] is None else capacities[name] or 0 for name in names}
    if sum(free.values()) < len(ranks):
        raise SpecError(
            f"{len(ranks)} ranks do not fit on hosts that may have {sum(free.values())}",
            hint="start more hosts, or give them more --ranks",
        )
    if len(groups) == len(names) and all(
        group.num_ranks <= free[name] for group, name in zip(groups, names, strict=True)
    ):
        return {
            name: tuple(entry for entry in ranks if entry[0] == number) for number, name in enumerate(names)
        }
    assigned: dict[str, tuple[tuple[GroupId, RankId], ...]] = {}
    for index, name in enumerate(names):
        share = min(free[name], -(-len(ranks) // (len(names) - index)))
        share = max(share, len(ranks) - sum(free[other] for other in names[index + 1 :]))
        assigned[name], ranks = tuple(ranks[:share]), ranks[share:]
    return assigned
