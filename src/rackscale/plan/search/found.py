"""The search: every layout within bounds, and the best of them measured in a closed loop."""

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from rackscale.cost import Parameters, fitted
from rackscale.plan.closed_loop import Loop
from rackscale.plan.question import Question
from rackscale.plan.search.evaluate import Deployments, measured
from rackscale.plan.search.frontier import staircase
from rackscale.plan.search.pools import MOST_BUSY_MIXED, NEAR, Window, candidates
from rackscale.plan.search.ratio import MOST_BUSY

Array = NDArray[np.float64]
Numbers = NDArray[np.intp]

FINALISTS = 48  # layouts that are measured at more than one concurrency
LADDER = np.concatenate([np.linspace(0.7, 1.1, 21), [1.15, 1.2, 1.3]])  # of the concurrency that was found
TOLERANCE = 1e-6  # of a level of service


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Frontier:
    """Deployments that no other beats at once in speed for a user and in throughput of the whole budget, the
    fastest for users first. Columns [R], as the closed loop has them at whole concurrencies.

    utilisation: of prefill ranks. copies: how often the deployment is there; the numbers of groups and of
    requests are of all copies. searched: layouts that were evaluated. chips: of the budget."""

    deployments: Deployments
    tpot_s: Array
    ttft_s: Array
    tokens_per_s_per_chip: Array
    utilisation: Array
    copies: Array
    searched: int
    chips: int

    def __len__(self) -> int:
        return len(self.tpot_s)

    @property
    def tokens_per_s_per_user(self) -> Array:
        return 1 / self.tpot_s

    @property
    def goal(self) -> Array:
        """Tokens per second and chip of the budget, idle chips counted."""
        return self.tokens_per_s_per_chip * self.deployments.chips / self.chips

    def take(self, numbers: Numbers) -> "Frontier":
        """Those, in that order."""
        return Frontier(
            deployments=self.deployments.take(numbers),
            searched=self.searched,
            chips=self.chips,
            **{name: getattr(self, name)[numbers] for name in _COLUMNS},
        )


_COLUMNS = ("tpot_s", "ttft_s", "tokens_per_s_per_chip", "utilisation", "copies")


def search(question: Question, parameters: Parameters | None = None) -> Frontier:
    """What no other layout beats. parameters: one row; the fitted ones by default.

    Raises SpecError where the model does not fit, and says how many chips it needs.
    """
    values = question.with_skew(fitted() if parameters is None else parameters)
    return _searched(question, values, Window())


def best(
    question: Question, parameters: Parameters | None = None, frontier: Frontier | None = None
) -> Frontier | None:
    """The one that has the most throughput and meets the question's level of service, in a frontier of one;
    None where nothing does. frontier: what `search` found."""
    values = question.with_skew(fitted() if parameters is None else parameters)
    if frontier is None:
        frontier = _searched(question, values, Window.around(question.interactivity))
    whole = frontier
    near = np.flatnonzero(_meets(question, whole, slack=NEAR[0]))
    if not len(near):
        return None
    near = near[np.argsort(-whole.goal[near], kind="stable")][:FINALISTS]
    rows = np.repeat(near, len(LADDER))
    times = np.tile(LADDER, len(near))
    tried = whole.deployments.take(rows)
    scaled = replace_concurrency(tried, np.maximum(np.floor(tried.concurrency * times), 1.0))
    ladder = _measured(question, values, scaled, whole.copies[rows], whole.searched, whole.chips)
    good = np.flatnonzero(_meets(question, ladder))
    return ladder.take(good[[int(np.argmax(ladder.goal[good]))]]) if len(good) else None


def _searched(question: Question, parameters: Parameters, window: Window) -> Frontier:
    found = candidates(question, parameters, window)
    whole = _measured(question, parameters, found.deployments, found.copies, found.searched, found.chips)
    return _staircase(question, whole)


def replace_concurrency(deployments: Deployments, concurrency: Array) -> Deployments:
    """The same under so many requests."""
    kept = {field.name: getattr(deployments, field.name) for field in fields(deployments)}
    return Deployments(**{**kept, "concurrency": concurrency})


def _measured(
    question: Question,
    parameters: Parameters,
    deployments: Deployments,
    copies: Array,
    searched: int,
    chips: int,
) -> Frontier:
    whole = replace_concurrency(deployments, np.maximum(np.round(deployments.concurrency), 1.0))
    loop: Loop = measured(question, whole, parameters)
    kept = {field.name: getattr(whole, field.name) for field in fields(whole)}
    sequences = np.broadcast_to(loop.sequences, loop.tpot_s.shape)[0]
    return Frontier(
        deployments=Deployments(**{**kept, "sequences": sequences}),
        tpot_s=loop.tpot_s[0],
        ttft_s=loop.ttft_s[0],
        tokens_per_s_per_chip=loop.tokens_per_s_per_chip[0],
        utilisation=loop.utilisation[0],
        copies=copies,
        searched=searched,
        chips=chips,
    )


def _staircase(question: Question, whole: Frontier) -> Frontier:
    """Those that wait too long for the first token are none."""
    patient = np.flatnonzero(whole.ttft_s <= (question.ttft_s or np.inf) * (1 + TOLERANCE))
    few = whole.take(patient)
    return few.take(staircase(few.tpot_s, few.goal))


def _meets(question: Question, whole: Frontier, slack: float = 1.0) -> NDArray[np.bool_]:
    """slack: below 1, what a smaller concurrency may mend."""
    fast = np.ones(len(whole), dtype=np.bool_)
    if question.interactivity is not None:
        fast = whole.tokens_per_s_per_user >= question.interactivity * slack * (1 - TOLERANCE)
    busiest = np.where(whole.deployments.disaggregated, MOST_BUSY, MOST_BUSY_MIXED)
    fast &= whole.utilisation <= busiest * (2 - slack)
    return fast & (whole.ttft_s <= (question.ttft_s or np.inf) / slack * (1 + TOLERANCE))
