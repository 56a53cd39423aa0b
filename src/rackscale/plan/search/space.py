"""Which groups of ranks are looked at.

ranks: one, even divisors of a domain and multiples of four inside of it, whole domains beyond, to 576; an odd
number would have single chips of many hosts. tp: powers of two that divide heads and ranks. Experts are
spread over all ranks of a group, with slots that ranks divide, or each is split over all of them.

The skew that a fit found is what is left of popularity under the balancers that served rows had, so further
copies of experts even out nothing there and only fill slots up. Where a question knows its router's skew, a
placement by this project's balancer says how even redundant copies make the ranks.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from rackscale.cost.expert_load import chances
from rackscale.plan.question import WIDEST_EP, Question
from rackscale.policy.expert_placement import even_placement, place_experts

Array = NDArray[np.float64]

MOST_TP = 16
MOST_SPLIT = 16  # ranks that an expert is split over
TRAY = 4  # chips of the smallest host
EXTRA_SLOTS = (0, 1, 2)  # of each rank, beyond those that experts need
MICRO_BATCHES = (1, 2)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Groups:
    """Columns [G]. weights: numbers in `formats`. balance: see `cost.expert_load.slowest`."""

    formats: tuple[str, ...]
    weights: NDArray[np.intp]
    ranks: Array
    tp: Array
    ep: Array
    slots: Array
    micro_batches: Array
    balance: Array

    def __len__(self) -> int:
        return len(self.ranks)

    def take(self, numbers: NDArray[np.intp]) -> "Groups":
        """Those, in that order."""
        return Groups(formats=self.formats, **{name: getattr(self, name)[numbers] for name in _COLUMNS})

    def joined(self, other: "Groups") -> "Groups":
        """These, and then those of the same formats."""
        pairs = {name: [getattr(self, name), getattr(other, name)] for name in _COLUMNS}
        return Groups(formats=self.formats, **{name: np.concatenate(pair) for name, pair in pairs.items()})


_COLUMNS = ("weights", "ranks", "tp", "ep", "slots", "micro_batches", "balance")


def budget(question: Question, smallest: int) -> int:
    """Chips that may be used. smallest: that a deployment needs, which decides how many domains are taken
    where the question leaves it open."""
    domain = question.system.domain_chips
    return question.chips or domain * max(1, -(-smallest // domain))


def groups(question: Question, chips: int) -> Groups:
    """All that are legal within so many chips, in order of their ranks; simple ones before others of their
    size."""
    spec = question.model.spec
    moe = spec.moe
    experts, top_k = (moe.router.num_experts, moe.router.top_k) if moe else (1, 1)
    rows: list[tuple[float, ...]] = []
    for ranks in ranks_of(question, chips):
        for tp in _tps(question, ranks):
            rows += [
                (number, ranks, tp, 1, experts, 1, 0.0)
                for number in range(len(question.formats()))
                if _splits(question, ranks) and not question.redundant
            ]
            if moe is None or ranks == 1 or ranks > (question.max_ep or WIDEST_EP):
                continue
            for slots in _slots(question, experts, ranks):
                balance = 0.0
                if question.skew is not None and slots > experts:
                    balance = balance_of(experts, top_k, question.skew, ranks, slots)
                rows += [
                    (number, ranks, tp, ranks, slots, micro, balance)
                    for number in range(len(question.formats()))
                    for micro in MICRO_BATCHES
                ]
    table = np.array(rows, dtype=np.float64).reshape(-1, 7).T
    return Groups(
        formats=question.formats(),
        weights=table[0].astype(np.intp),
        ranks=table[1],
        tp=table[2],
        ep=table[3],
        slots=table[4],
        micro_batches=table[5],
        balance=table[6],
    )


def ranks_of(question: Question, chips: int) -> list[int]:
    """Sizes of groups, rising."""
    domain = question.system.domain_chips
    most = min(chips, WIDEST_EP)
    even = range(2, domain + 1, 2)
    inside = {1, 2, domain, *(size for size in even if domain % size == 0 or size % TRAY == 0)}
    beyond = set(range(2 * domain, most + 1, domain))
    return sorted(size for size in inside | beyond if size <= most)


def _tps(question: Question, ranks: int) -> list[int]:
    """Heads must divide by it; keys' heads that do not are copied."""
    attention = question.model.spec.attention
    most = min(MOST_TP, question.system.domain_chips, ranks)
    return [tp for tp in (1, 2, 4, 8, 16) if tp <= most and ranks % tp == 0 and attention.num_heads % tp == 0]


def _splits(question: Question, ranks: int) -> bool:
    """Whether every rank can have a part of each expert."""
    moe = question.model.spec.moe
    width = question.model.spec.dense_width if moe is None else moe.width
    return ranks <= min(MOST_SPLIT, question.system.domain_chips) and width % ranks == 0


def _slots(question: Question, experts: int, ranks: int) -> list[int]:
    """Multiples of the ranks that hold all experts and the redundant ones that are asked for."""
    if question.redundant is not None:
        slots = -(-(experts + question.redundant) // ranks) * ranks
        return [slots] if question.redundant or slots == experts else []
    fewest = -(-experts // ranks) * ranks
    extras = (0,) if question.skew is None else EXTRA_SLOTS
    return [fewest + extra * ranks for extra in extras if fewest + extra * ranks <= experts * ranks]


@cache
def balance_of(experts: int, top_k: int, skew: float, ranks: int, slots: int) -> float:
    """How much of the lasting unevenness a placement with so many slots takes away, 0 to 1: of a layer whose
    experts are as popular as Zipf's law has it, numbered at random."""
    numbered = (np.arange(experts) * _stride(experts)) % experts
    loads = chances(experts, top_k, skew)[numbered][None]
    before = float(even_placement(1, experts, ranks, -(-experts // ranks)).imbalance_of(loads)[0]) - 1
    after = float(place_experts(loads, slots, ranks).imbalance[0]) - 1
    return float(np.clip(1 - after / before, 0.0, 1.0)) if before > 0 else 0.0


def _stride(experts: int) -> int:
    """A step that goes through all experts without an order: next to the golden section of them."""
    step = max(1, round(experts * 0.618))
    while np.gcd(step, experts) != 1:
        step += 1
    return step
