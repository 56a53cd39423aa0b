"""One layer's placement while it is searched: step by step, the heaviest rank is relieved.

Axes: R ranks, S slots of a rank, E experts, K candidates for a step. An expert's load is split evenly over
its copies, and one copy's part is its share. A step waits for the heaviest rank, so only steps that relieve
that rank are looked at:

- a swap exchanges one of its copies with a copy of another rank;
- a recount hands one slot from an expert that has other copies to another expert: either one of the heaviest
  rank's experts gets a copy more, or the heaviest rank lets a copy go.

No rank ever holds an expert twice: the second copy would spread nothing.
"""

from collections.abc import Callable, Iterable
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from rackscale.policy.expert_placement.placement import Bools, Ints, Loads

ROUNDING = 1e-12  # a step that gains no more, as a part of the load, may be undone by the next one
STEPS_PER_RANK = 4  # a bound; a search mostly ends long before it, where no step helps

Step: TypeAlias = list[tuple[int, int, int]]  # (rank, slot, the expert that it then holds); empty: none helps
Indices: TypeAlias = npt.NDArray[np.intp]


class Draft:
    """Who holds what in one layer, and the loads that follow from it."""

    experts_RS: Ints
    copies_E: Indices
    held_RE: Bools
    share_E: Loads
    load_R: Loads

    def __init__(self, experts_RS: Ints, load_E: Loads, num_domains: int = 1) -> None:
        """experts_RS: no rank has two of one expert, and every expert is held."""
        num_ranks = len(experts_RS)
        self.load_E = load_E
        self.domain_R = np.arange(num_ranks) // (num_ranks // num_domains)
        self._lay(experts_RS.copy())

    def _lay(self, experts_RS: Ints) -> None:
        self.experts_RS = experts_RS
        self.copies_E = np.bincount(experts_RS.ravel(), minlength=len(self.load_E))
        self.held_RE = np.zeros((len(experts_RS), len(self.load_E)), dtype=np.bool_)
        np.put_along_axis(self.held_RE, experts_RS, values=True, axis=1)
        self.share_E = self.load_E / self.copies_E
        self.load_R = self.share_E[experts_RS].sum(axis=1)

    @property
    def heaviest(self) -> float:
        """The load of the heaviest rank."""
        return float(self.load_R.max())

    def improve(self, target: float, *kinds: Callable[["Draft"], Step]) -> None:
        """Take the best step of the first kind that has one, until the heaviest rank has at most `target`."""
        steps_left = STEPS_PER_RANK * len(self.load_R)
        while steps_left and self.heaviest > target and (step := self._next(kinds)):
            for rank, slot, expert in step:
                self.experts_RS[rank, slot] = expert
            self._lay(self.experts_RS)
            steps_left -= 1

    def _next(self, kinds: Iterable[Callable[["Draft"], Step]]) -> Step:
        return next(filter(None, (find(self) for find in kinds)), [])

    def best(self, after_K: Loads, rank_K: Indices) -> int | None:
        """The candidate with the least load after it; None if none relieves the heaviest rank.

        One with a rank of the heaviest rank's own domain goes before all others, to keep groups together.
        """
        heavy = self.load_R.argmax()
        limit = self.load_R[heavy] * (1 - ROUNDING)
        helps_K = np.flatnonzero(after_K < limit)
        if not len(helps_K):
            return None
        far_K = self.domain_R[rank_K[helps_K]] != self.domain_R[heavy]
        return int(helps_K[(after_K[helps_K] + far_K * limit).argmin()])


def swap(draft: Draft) -> Step:
    """The swap that lowers the greater of its two ranks' loads the most."""
    experts_RS, held_RE = draft.experts_RS, draft.held_RE
    heavy = int(draft.load_R.argmax())
    mine_S, share_RS = experts_RS[heavy], draft.share_E[experts_RS]
    relief_SRS = share_RS[heavy][:, None, None] - share_RS
    after_SRS = np.maximum(draft.load_R[heavy] - relief_SRS, draft.load_R[:, None] + relief_SRS)
    after_SRS[held_RE[:, mine_S].T] = np.inf
    after_SRS[:, held_RE[heavy][experts_RS]] = np.inf
    best = draft.best(after_SRS.ravel(), np.indices(after_SRS.shape)[1].ravel())
    if best is None:
        return []
    mine, rank, slot = (int(i) for i in np.unravel_index(best, after_SRS.shape))
    return [(rank, slot, int(mine_S[mine])), (heavy, mine, int(experts_RS[rank, slot]))]


def recount(draft: Draft) -> Step:
    """The recount that lowers the greatest load of the ranks concerned the most."""
    rank_K, slot_K, expert_K = _recounts(draft)
    best = draft.best(_after_recounts(draft, rank_K, slot_K, expert_K), rank_K)
    return [] if best is None else [(int(rank_K[best]), int(slot_K[best]), int(expert_K[best]))]


def _recounts(draft: Draft) -> tuple[Indices, Indices, Indices]:
    """All (rank, slot, expert that it is to hold) that may relieve the heaviest rank; K is their number."""
    heavy = draft.load_R.argmax()
    rank_N, slot_N = np.nonzero(draft.copies_E[draft.experts_RS] > 1)
    wanted_NE = draft.held_RE[heavy] | (rank_N == heavy)[:, None]
    chosen_K, expert_K = np.nonzero(wanted_NE & ~draft.held_RE[rank_N])
    return rank_N[chosen_K], slot_N[chosen_K], expert_K


def _after_recounts(draft: Draft, rank_K: Indices, slot_K: Indices, new_K: Indices) -> Loads:
    """The greatest load after each: of its rank, the heaviest rank, and the old expert's other ranks.

    An upper bound: a rank of the old expert may hold the new one too, and so gain less than it says here. The
    new expert's other ranks are relieved, and not looked at.
    """
    old_K, heavy = draft.experts_RS[rank_K, slot_K], draft.load_R.argmax()
    more_E = draft.load_E / (draft.copies_E + 1)
    fewer_E = draft.load_E / np.maximum(draft.copies_E - 1, 1)
    own_K = draft.load_R[rank_K] - draft.share_E[old_K] + more_E[new_K]
    heavy_K = draft.load_R[heavy] - draft.share_E[new_K] + more_E[new_K]
    heavy_K[rank_K == heavy] = 0
    first_E, second_E = _two_heaviest(draft)
    others_K = np.where(first_E[old_K] == draft.load_R[rank_K], second_E[old_K], first_E[old_K])
    others_K += fewer_E[old_K] - draft.share_E[old_K]
    after_K: Loads = np.maximum(np.maximum(own_K, heavy_K), others_K)
    return after_K


def _two_heaviest(draft: Draft) -> tuple[Loads, Loads]:
    """The loads of the two heaviest ranks that hold each expert; 0 where there are not as many."""
    load_ER = draft.held_RE.T * draft.load_R
    first_E = load_ER.max(axis=1)
    np.put_along_axis(load_ER, load_ER.argmax(axis=1)[:, None], values=0, axis=1)
    return first_E, load_ER.max(axis=1)
