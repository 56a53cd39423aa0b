"""The rack, drawn: domains, the groups in them, and what is left over."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby

from rackscale.plan.report.figures import percent, plural
from rackscale.plan.report.markup import Markup, element, joined, style
from rackscale.plan.report.system import System
from rackscale.plan.report.words import split_words
from rackscale.plan.types import PoolPlan
from rackscale.specs import Role

TRAY_CHIPS = 4
WIDEST = 16
WIDE = 3.0  # columns over rows
CUT_SHORT = 0.5  # what a last row that is not full costs, in logarithms of a width
ORDER = (Role.PREFILL, Role.MIXED, Role.DECODE)


@dataclass(slots=True)
class Domain:
    """Chips of groups by pool and the group's number, and how many more chips there are."""

    free: int
    parts: list[tuple[PoolPlan, int, int]] = field(default_factory=list)

    def shape(self) -> list[tuple[Role, int]]:
        return [(pool.role, chips) for pool, _, chips in self.parts]


def placed(pools: Sequence[PoolPlan], domain_chips: int) -> list[Domain]:
    """Groups in domains: large ones first, each in the first domain with room. One that is larger than a
    domain takes whole ones, and the rest of its last is free for others."""
    domains: list[Domain] = []
    groups = [(pool, number) for pool in pools for number in range(pool.groups)]
    for pool, number in sorted(groups, key=lambda group: -group[0].ranks):
        left = pool.ranks
        while left > 0:
            chips = min(left, domain_chips)
            home = next((domain for domain in domains if domain.free >= chips), None)
            if home is None:
                home = Domain(domain_chips)
                domains.append(home)
            home.parts.append((pool, number, chips))
            home.free -= chips
            left -= chips
    for domain in domains:
        domain.parts.sort(key=lambda part: (ORDER.index(part[0].role), part[1]))
    return domains


def rack(pools: Sequence[PoolPlan], system: System) -> Markup:
    """All domains; where several in a row hold the same, one is drawn for all of them."""
    domains = placed(pools, system.domain_chips)
    drawn, first = [], 1
    for same in _alike(domains):
        drawn.append(_domain(same, first, system))
        first += len(same)
    return joined(element("div", *drawn, class_="domains"), _key(pools, domains))


def cabinets(pools: Sequence[PoolPlan], system: System) -> int:
    """Domains that are drawn."""
    return len(_alike(placed(pools, system.domain_chips)))


def _alike(domains: Sequence[Domain]) -> list[list[Domain]]:
    return [list(same) for _, same in groupby(domains, Domain.shape)]


def _domain(same: Sequence[Domain], first: int, system: System) -> Markup:
    last = first + len(same) - 1
    many = f"Domains {first} {'and' if len(same) == 2 else 'to'} {last}, each"
    domain = same[0]
    used = sum(chips for _, _, chips in domain.parts)
    parts = [_group(pool, number if len(same) == 1 else None, chips) for pool, number, chips in domain.parts]
    if domain.free:
        parts.append(_chips("spare", f"spare {domain.free}", domain.free, "not used"))
    return element(
        "div",
        element(
            "div",
            element("b", f"Domain {first}" if len(same) == 1 else many),
            element("span", f"{used} of {system.domain_chips} chips"),
            class_="crown",
        ),
        element("div", *parts, class_="groups"),
        class_="domain",
    )


def _group(pool: PoolPlan, number: int | None, chips: int) -> Markup:
    """number: None where the group stands for several."""
    part = "" if chips == pool.ranks else f", {chips} of {pool.ranks} chips"
    which = pool.role if number is None else f"{pool.role} {number + 1}"
    return _chips(pool.role, f"{which}{part}", chips, f"{which} of {pool.groups}, {split_words(pool)}{part}")


def _chips(role: str, name: str, chips: int, said: str) -> Markup:
    return element(
        "div",
        element("span", name),
        element("div", *[element("i")] * chips, class_="chips", style=style(var_columns=_columns(chips))),
        class_="group",
        data_role=role,
        title=said,
        role="img",
        aria_label=said,
    )


def _columns(chips: int) -> int:
    """Whole trays next to each other, wider than high, and rather no row cut short."""
    if chips <= TRAY_CHIPS:
        return chips
    wanted = math.sqrt(WIDE * chips)
    widths = range(TRAY_CHIPS, WIDEST + 1, TRAY_CHIPS)
    return min(widths, key=lambda width: abs(math.log(width / wanted)) + CUT_SHORT * (chips % width > 0))


def _key(pools: Sequence[PoolPlan], domains: Sequence[Domain]) -> Markup:
    total = sum(pool.chips for pool in pools)
    spare = sum(domain.free for domain in domains)
    keys = [
        _entry(pool.role, f"{pool.role}: {plural(pool.chips, 'chip')}, {percent(pool.chips / total)}")
        for pool in pools
    ]
    if spare:
        keys.append(_entry("spare", f"spare: {plural(spare, 'chip')}"))
    return element("ul", *keys, class_="keys")


def _entry(role: str, text: str) -> Markup:
    return element("li", element("i", data_role=role), text)
