"""Candidates of both roles: each pool evaluated at every batch, pairs of pools bounded before they are."""

from collections.abc import Iterator
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from rackscale.core import SpecError
from rackscale.cost import Parameters
from rackscale.plan.question import WIDEST_EP, Question
from rackscale.plan.search.evaluate import CHUNK, Deployments, Prompts, decode_steps, prompts, room, steady
from rackscale.plan.search.frontier import Stairs, nondominated, staircase
from rackscale.plan.search.ratio import MORE_PREFILL, MOST_GROUPS, Pairs, Sides, pairs
from rackscale.plan.search.space import Groups, budget, groups

Array = NDArray[np.float64]
Numbers = NDArray[np.intp]

MOST_BATCH = 2048  # sequences of an attention: engines take no more
BATCH_STEP = 1.06  # from one batch to the next, beyond those of a few
MOST_BUSY_MIXED = 0.98  # of a group's time may be prompts'


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Candidates:
    """Deployments that may be the best at their speed; copies of each fill the budget of chips."""

    deployments: Deployments
    copies: Array
    searched: int
    chips: int


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Scored:
    deployments: Deployments
    tpot_s: Array
    goal: Array

    def take(self, numbers: Numbers) -> "_Scored":
        return _Scored(
            deployments=self.deployments.take(numbers), tpot_s=self.tpot_s[numbers], goal=self.goal[numbers]
        )

    def joined(self, other: "_Scored") -> "_Scored":
        return _Scored(
            deployments=self.deployments.joined(other.deployments),
            tpot_s=np.concatenate([self.tpot_s, other.tpot_s]),
            goal=np.concatenate([self.goal, other.goal]),
        )

    @property
    def stairs(self) -> "_Scored":
        return self.take(staircase(self.tpot_s, self.goal))


def batches() -> Array:
    """Sequences of an attention that are looked at, rising."""
    grown = BATCH_STEP ** np.arange(0, np.log(MOST_BATCH) / np.log(BATCH_STEP))
    return np.unique(np.round(np.concatenate([grown, [MOST_BATCH]])))


def smallest_fit(question: Question) -> int:
    """Ranks of the smallest group that holds the model and one request at each attention. Raises SpecError
    where not even the widest does."""
    every = groups(question, WIDEST_EP, None)
    holds = every.ranks[room(question, every) >= 1] if len(every) else np.zeros(0)
    if not len(holds):
        raise SpecError(
            f"{question.model.name} does not fit {WIDEST_EP} chips of {question.system.name}",
            hint="give narrower weights or shorter requests",
        )
    return int(holds.min())


def candidates(question: Question, parameters: Parameters) -> Candidates:
    """Raises SpecError where nothing fits the chips, and says how many would do."""
    question.check()
    smallest = smallest_fit(question) * (2 if question.role == "disaggregated" else 1)
    chips = budget(question, smallest)
    if smallest > chips:
        raise SpecError(
            f"{question.model.name} does not fit {chips} chips of {question.system.name}",
            hint=f"it needs at least {smallest}",
        )
    every = groups(question, chips, float(parameters["routing_skew"][0, 0]))
    space = every.take(np.flatnonzero(room(question, every) >= 1))
    searched, found = 0, None
    for role, evaluated in (("mixed", _mixed), ("disaggregated", _disaggregated)):
        if question.role in {"auto", role}:
            count, scored = evaluated(question, space, parameters, chips)
            searched += count
            found = scored if found is None else found.joined(scored)
    assert found is not None, f"role {question.role} was checked"
    winners = found.stairs.deployments
    copies = np.floor(chips / winners.chips)
    return Candidates(deployments=_copied(winners, copies), copies=copies, searched=searched, chips=chips)


def _copied(deployments: Deployments, copies: Array) -> Deployments:
    kept = {field.name: getattr(deployments, field.name) for field in fields(deployments)}
    grown = {name: kept[name] * copies for name in ("prefill_groups", "decode_groups", "concurrency")}
    return Deployments(**{**kept, **grown})


def _cells(question: Question, space: Groups) -> tuple[Numbers, Array]:
    """Numbers of groups, and sequences of a whole group, for all batches that have room; the fullest too."""
    most = np.minimum(np.floor(room(question, space)), MOST_BATCH)
    table = np.minimum(batches(), most[:, None])
    fresh = np.concatenate([np.ones((len(space), 1), dtype=np.bool_), np.diff(table, axis=1) > 0], 1)
    row, column = np.nonzero(fresh)
    return row, table[row, column] * (space.ranks / space.tp)[row]


def _filled(per_chip: Array, deployments: Deployments, chips: int) -> Array:
    """Of the whole budget, when copies take what they can of it."""
    return per_chip * np.floor(chips / deployments.chips) * deployments.chips / chips


def _mixed(question: Question, space: Groups, parameters: Parameters, chips: int) -> tuple[int, _Scored]:
    row, sequences = _cells(question, space)
    seconds, _ = decode_steps(question, space.take(row), sequences, parameters, disaggregated=False)
    own = prompts(question, space, parameters, disaggregated=False)
    ones = np.ones(len(row))
    pool = space.take(row)
    deployments = Deployments(
        disaggregated=np.zeros(len(row), dtype=np.bool_),
        prefill=pool,
        decode=pool,
        prefill_groups=ones,
        decode_groups=ones,
        sequences=sequences,
        concurrency=ones,
    )
    scored = _scored(question, deployments, _of(own, row), seconds, parameters, chips)
    return len(row), scored.stairs


def _scored(
    question: Question,
    deployments: Deployments,
    own: Prompts,
    seconds: Array,
    parameters: Parameters,
    chips: int,
) -> _Scored:
    """Those that keep up and do not let users wait."""
    state = steady(question, deployments, own, seconds, parameters)
    kept = {field.name: getattr(deployments, field.name) for field in fields(deployments)}
    scored = _Scored(
        deployments=Deployments(**{**kept, "concurrency": state.concurrency}),
        tpot_s=state.tpot_s,
        goal=_filled(state.tokens_per_s_per_chip, deployments, chips),
    )
    good = np.flatnonzero(
        (state.utilisation <= MOST_BUSY_MIXED) & (state.ttft_s <= (question.ttft_s or np.inf))
    )
    return scored.take(good)


def _of(own: Prompts, numbers: Numbers) -> Prompts:
    return Prompts(**{field.name: getattr(own, field.name)[numbers] for field in fields(own)})


def _disaggregated(
    question: Question, space: Groups, parameters: Parameters, chips: int
) -> tuple[int, _Scored]:
    """Pools of each kind on their own; then pairs, the most promising first, while they promise more than was
    found."""
    row, sequences = _cells(question, space)
    seconds, tpot = decode_steps(question, space.take(row), sequences, parameters, disaggregated=True)
    fits = (room(question, space) * space.ranks / space.tp)[row]
    kept = _best_of_each(space.take(row), tpot, -sequences / tpot, -fits)
    decode, sequences, seconds, tpot = space.take(row[kept]), sequences[kept], seconds[kept], tpot[kept]
    own = prompts(question, space, parameters, disaggregated=True)
    few = _best_of_each(space, own.alone, own.each, own.together)
    prefill, own = space.take(few), _of(own, few)
    sides = Sides(
        decode_ranks=decode.ranks,
        rate=sequences / (question.mean_length * question.osl * tpot),
        prefill_ranks=prefill.ranks,
        each_s=own.each,
        same=decode.weights[:, None] == prefill.weights,
    )
    count, stairs = len(row) + len(space), Stairs()
    found = _Scored(deployments=_none(space), tpot_s=np.zeros(0), goal=np.zeros(0))
    most = sides.rate * question.mean_length * (question.isl + question.osl)
    most = most / float(parameters["ramp_disaggregated"][0, 0])
    for some in pairs(sides, chips, MORE_PREFILL if question.ttft_s is None else MOST_GROUPS):
        bound = most[some.decode] * some.decode_groups * (chips // _chips(some, sides)) / chips
        for block in _blocks(some, bound, tpot[some.decode], stairs):
            count += len(block)
            deployments = Deployments(
                disaggregated=np.ones(len(block), dtype=np.bool_),
                prefill=prefill.take(block.prefill),
                decode=decode.take(block.decode),
                prefill_groups=block.prefill_groups,
                decode_groups=block.decode_groups,
                sequences=sequences[block.decode],
                concurrency=np.ones(len(block)),
            )
            scored = _scored(
                question, deployments, _of(own, block.prefill), seconds[block.decode], parameters, chips
            )
            stairs.add(scored.tpot_s, scored.goal)
            found = found.joined(scored.stairs).stairs
    return count, found


def _chips(some: Pairs, sides: Sides) -> Array:
    return (
        some.decode_groups * sides.decode_ranks[some.decode]
        + some.prefill_groups * sides.prefill_ranks[some.prefill]
    )


def _blocks(some: Pairs, bound: Array, tpot: Array, stairs: Stairs) -> Iterator[Pairs]:
    """Those whose bound is above what was found, also while they are looked at; the highest bounds first.
    tpot, bound: of the pairs."""
    order = np.argsort(-bound, kind="stable")
    for start in range(0, len(order), CHUNK):
        numbers = order[start : start + CHUNK]
        numbers = numbers[bound[numbers] > stairs.reached(tpot[numbers])]
        if len(numbers):
            yield some.take(numbers)


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
