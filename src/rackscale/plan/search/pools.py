"""Candidates of both roles: each pool evaluated at every batch, pairs of pools bounded before they are."""

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray

from rackscale.core import SpecError
from rackscale.cost import Parameters
from rackscale.plan.question import WIDEST_EP, Question
from rackscale.plan.search.evaluate import CHUNK, Deployments, Prompts, decode_steps, prompts, room, steady
from rackscale.plan.search.frontier import Stairs, nondominated, staircase
from rackscale.plan.search.ratio import MORE_PREFILL, MOST_GROUPS, Pairs, Sides, fewest_chips, pairs
from rackscale.plan.search.remembered import Remembered
from rackscale.plan.search.space import Groups, budget, groups

Array = NDArray[np.float64]
Numbers = NDArray[np.intp]

MOST_BATCH = 2048  # sequences of an attention: engines take no more
BATCH_STEP = 1.06  # from one batch to the next, beyond those of a few
NEAR = (0.85, 1.3)  # of a level of interactivity: other concurrencies bring layouts there
MOST_BUSY_MIXED = 0.98  # of a group's time may be prompts'


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Candidates:
    """Deployments that may be the best at their speed; copies of each fill the budget of chips."""

    deployments: Deployments
    copies: Array
    searched: int
    chips: int


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Window:
    """Seconds for each token of an answer that matter: what is slower is left out, and what is faster counts
    as no better. Everything matters by default."""

    fastest_s: float = 0.0
    slowest_s: float = np.inf

    @classmethod
    def around(cls, interactivity: float | None) -> Self:
        """What may be the best at a speed of users, with room for other concurrencies."""
        if interactivity is None:
            return cls()
        return cls(fastest_s=1 / (interactivity * NEAR[1]), slowest_s=1 / (interactivity * NEAR[0]))


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Scored:
    """cost: seconds for a token, as the window has them. goal: tokens per second and chip of the budget."""

    deployments: Deployments
    cost: Array
    goal: Array

    def take(self, numbers: Numbers) -> "_Scored":
        return _Scored(
            deployments=self.deployments.take(numbers), cost=self.cost[numbers], goal=self.goal[numbers]
        )

    def joined(self, other: "_Scored") -> "_Scored":
        """The stairs of both."""
        both = _Scored(
            deployments=self.deployments.joined(other.deployments),
            cost=np.concatenate([self.cost, other.cost]),
            goal=np.concatenate([self.goal, other.goal]),
        )
        return both.take(staircase(both.cost, both.goal))


def batches() -> Array:
    """Sequences of an attention that are looked at, rising."""
    grown = BATCH_STEP ** np.arange(0, np.log(MOST_BATCH) / np.log(BATCH_STEP))
    return np.unique(np.round(np.concatenate([grown, [MOST_BATCH]])))


def smallest_fit(question: Question) -> int:
    """Ranks of the smallest group that holds the model and one request at each attention. Raises SpecError
    where not even the widest does."""
    every = groups(replace(question, skew=None), WIDEST_EP)
    holds = every.ranks[room(question, every) >= 1] if len(every) else np.zeros(0)
    if not len(holds):
        raise SpecError(
            f"{question.model.name} does not fit {WIDEST_EP} chips of {question.system.name}",
            hint="give narrower weights or shorter requests",
        )
    return int(holds.min())


def candidates(question: Question, parameters: Parameters, window: Window) -> Candidates:
    """Raises SpecError where nothing fits the chips, and says how many would do."""
    question.check()
    smallest = smallest_fit(question) * (2 if question.role == "disaggregated" else 1)
    chips = budget(question, smallest)
    if smallest > chips:
        raise SpecError(
            f"{question.model.name} does not fit {chips} chips of {question.system.name}",
            hint=f"it needs at least {smallest}",
        )
    every = groups(question, chips)
    space = every.take(np.flatnonzero(room(question, every) >= 1))
    run = _Run(question, Remembered.of(parameters), space, chips, window)
    if question.role != "disaggregated":
        run.mixed()
    if question.role != "mixed":
        run.disaggregated()
    winners = run.found.deployments
    copies = np.floor(chips / winners.chips)
    return Candidates(deployments=_copied(winners, copies), copies=copies, searched=run.searched, chips=chips)


def _copied(deployments: Deployments, copies: Array) -> Deployments:
    kept = {field.name: getattr(deployments, field.name) for field in fields(deployments)}
    grown = {name: kept[name] * copies for name in ("prefill_groups", "decode_groups", "concurrency")}
    return Deployments(**{**kept, **grown})


class _Run:
    """One search, and what it has found so far."""

    def __init__(
        self, question: Question, parameters: Parameters, space: Groups, chips: int, window: Window
    ) -> None:
        self.question, self.parameters, self.space = question, parameters, space
        self.chips, self.window = chips, window
        self.searched = 0
        self.stairs = Stairs()
        self.found = _Scored(deployments=_none(space), cost=np.zeros(0), goal=np.zeros(0))

    def mixed(self) -> None:
        """Groups that do both, at every batch."""
        row, sequences, seconds, _ = self._cells(disaggregated=False)
        own = prompts(self.question, self.space, self.parameters, disaggregated=False)
        ones, pool = np.ones(len(row)), self.space.take(row)
        deployments = Deployments(
            disaggregated=np.zeros(len(row), dtype=np.bool_),
            prefill=pool,
            decode=pool,
            prefill_groups=ones,
            decode_groups=ones,
            sequences=sequences,
            concurrency=ones,
        )
        self._add(deployments, own.take(row), seconds)

    def disaggregated(self) -> None:
        """Pools of each kind on their own; then pairs, the most promising first, while they promise more than
        was found."""
        question = self.question
        row, sequences, seconds, tpot = self._cells(disaggregated=True)
        self.searched += len(self.space)
        fits = (room(question, self.space) * self.space.ranks / self.space.tp)[row]
        kept = _best_of_each(self.space.take(row), tpot, -sequences / tpot, -fits)
        decode, sequences, seconds, tpot = (
            self.space.take(row[kept]),
            sequences[kept],
            seconds[kept],
            tpot[kept],
        )
        own = prompts(question, self.space, self.parameters, disaggregated=True)
        soon = np.flatnonzero(own.alone <= (question.ttft_s or np.inf))
        few = soon[_best_of_each(self.space.take(soon), *(cost[soon] for cost in own.columns))]
        prefill, own = self.space.take(few), own.take(few)
        sides = Sides(
            decode_ranks=decode.ranks,
            rate=sequences / (question.mean_length * question.osl * tpot),
            prefill_ranks=prefill.ranks,
            each_s=own.each,
            same=decode.weights[:, None] == prefill.weights,
        )
        more = MORE_PREFILL if question.ttft_s is None else MOST_GROUPS
        for number in range(1, MOST_GROUPS + 1):
            used = fewest_chips(sides, number)
            hopeful = self._tokens(sides, number) / used > self._reached(tpot)
            some = pairs(sides, np.flatnonzero(hopeful & (used <= self.chips)), number, self.chips, more)
            for block in self._blocks(some, self._bound(some, sides, number), tpot[some.decode]):
                self.searched += len(block)
                deployments = Deployments(
                    disaggregated=np.ones(len(block), dtype=np.bool_),
                    prefill=prefill.take(block.prefill),
                    decode=decode.take(block.decode),
                    prefill_groups=block.prefill_groups,
                    decode_groups=block.decode_groups,
                    sequences=sequences[block.decode],
                    concurrency=np.ones(len(block)),
                )
                self._add(deployments, own.take(block.prefill), seconds[block.decode])

    def _cells(self, *, disaggregated: bool) -> tuple[Numbers, Array, Array, Array]:
        """Numbers of groups, sequences of a whole group, and seconds for a step and for a token: for all
        batches that have room, the fullest too, as far as the window has them."""
        space = self.space
        most = np.minimum(np.floor(room(self.question, space)), MOST_BATCH)
        table = np.minimum(batches()[:, None], most)
        sequences = table * (space.ranks / space.tp)
        seconds, tpot = decode_steps(
            self.question, space, sequences, self.parameters, disaggregated=disaggregated
        )
        fresh = np.concatenate([np.ones((1, len(space)), dtype=np.bool_), np.diff(table, axis=0) > 0])
        self.searched += int(fresh.sum())
        batch, group = np.nonzero(fresh & (tpot <= self.window.slowest_s))
        return group, sequences[batch, group], seconds[batch, group], tpot[batch, group]

    def _tokens(self, sides: Sides, groups: int) -> Array:
        """Tokens per second [A] that a deployment with so many decode groups cannot exceed: those of the
        groups, when no request waits as a benchmark begins."""
        tokens = self.question.mean_length * (self.question.isl + self.question.osl)
        ramp = float(self.parameters["ramp_disaggregated"][0, 0])
        return np.asarray(groups * sides.rate * tokens / ramp)

    def _bound(self, some: Pairs, sides: Sides, groups: int) -> Array:
        """Tokens per second and chip of the budget that pairs cannot exceed."""
        prefill = some.prefill_groups * sides.prefill_ranks[some.prefill]
        copies = self.chips // (groups * sides.decode_ranks[some.decode] + prefill)
        return np.asarray(self._tokens(sides, groups)[some.decode] * copies / self.chips)

    def _reached(self, tpot: Array) -> Array:
        """What was found already at such speeds."""
        return self.stairs.reached(np.maximum(tpot, self.window.fastest_s))

    def _blocks(self, some: Pairs, bound: Array, tpot: Array) -> Iterator[Pairs]:
        """Those whose bound is above what was found, also while they are looked at; the highest bounds first.
        tpot, bound: of the pairs."""
        order = np.argsort(-bound, kind="stable")
        for start in range(0, len(order), CHUNK):
            numbers = order[start : start + CHUNK]
            numbers = numbers[bound[numbers] > self._reached(tpot[numbers])]
            if len(numbers):
                yield some.take(numbers)

    def _add(self, deployments: Deployments, own: Prompts, seconds: Array) -> None:
        """Those that keep up and do not let users wait."""
        state = steady(self.question, deployments, own, seconds, self.parameters)
        kept = {field.name: getattr(deployments, field.name) for field in fields(deployments)}
        copies = np.floor(self.chips / deployments.chips)
        scored = _Scored(
            deployments=Deployments(**{**kept, "concurrency": state.concurrency}),
            cost=np.maximum(state.tpot_s, self.window.fastest_s),
            goal=state.tokens_per_s_per_chip * copies * deployments.chips / self.chips,
        )
        good = (state.utilisation <= MOST_BUSY_MIXED) & (state.tpot_s <= self.window.slowest_s)
        good &= state.ttft_s <= (self.question.ttft_s or np.inf)
        few = scored.take(np.flatnonzero(good))
        self.stairs.add(few.cost, few.goal)
        self.found = self.found.joined(few)


def _best_of_each(pool: Groups, *costs: Array) -> Numbers:
    """Numbers of those that no other of as many ranks and the same weights beats in every cost."""
    kinds = pool.ranks * len(pool.formats) + pool.weights
    kept = [np.zeros(0, dtype=np.intp)]
    for kind in np.unique(kinds):
        numbers = np.flatnonzero(kinds == kind)
        kept.append(numbers[nondominated(*(cost[numbers] for cost in costs))])
    return np.concatenate(kept)


def _none(space: Groups) -> Deployments:
    pool, empty = space.take(np.zeros(0, dtype=np.intp)), np.zeros(0)
    return Deployments(
        disaggregated=np.zeros(0, dtype=np.bool_),
        prefill=pool,
        decode=pool,
        prefill_groups=empty,
        decode_groups=empty,
        sequences=empty,
        concurrency=empty,
    )
