"""What groups of ranks do, by the closed loop that is held against measurements.

A deployment's steady state hangs together by the sequences that decode in a group: their number gives the
step, the step gives the rate of requests, the rate gives how busy prefill ranks are, and that the wait. So a
pool of each role is evaluated once, at every batch, and pairs of pools only put numbers together. The
equations are those of `plan.closed_loop`, solved at a batch instead of at a concurrency.
"""

from dataclasses import dataclass, fields, replace
from datetime import date
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rackscale.cost import Chips, Layouts, Parameters, Precision, Shape, Work
from rackscale.cost.memory import sequences_that_fit
from rackscale.cost.priors import ENGINES, GENERATIONS
from rackscale.plan.closed_loop import MAX_UTILISATION, Case, Loop, LoopModel, LoopState, closed_loop
from rackscale.plan.inferencex import CACHE_OF_ALL, CACHE_OF_REST, DAYS_PER_MONTH, EPOCH, FORMATS
from rackscale.plan.question import Question
from rackscale.plan.search.space import Groups

Array = NDArray[np.float64]
Flags = NDArray[np.bool_]

NEWEST = date(2026, 6, 30)  # of the rows of the fit: engines are taken as they were then
CHUNK = 8192  # layouts evaluated at once: their arrays stay in the processor's cache
ITERATIONS = 14


def work_of(question: Question, groups: Groups) -> Work:
    """The groups, as cost formulas take them. What all have in common has one entry."""
    chips = Chips.of([question.system])
    formats = [FORMATS[name] for name in groups.formats]
    experts, mlp, linear = zip(*formats, strict=True)
    table = Precision.of(experts, mlp, linear, np.full(len(formats), _kv_bytes(chips)))
    number = question.engine_number()
    known = number >= 0 and chips.generation[0] >= 0
    return Work(
        shape=Shape.of(question.model.spec),
        chips=chips,
        layouts=Layouts(
            ranks=groups.ranks,
            tp=groups.tp,
            ep=groups.ep,
            slots=groups.slots,
            micro_batches=groups.micro_batches,
        ),
        precision=Precision(
            **{field.name: getattr(table, field.name)[groups.weights] for field in fields(Precision)}
        ),
        recipe=np.where(known, chips.generation * len(ENGINES) + number, -1),
        engine=np.array([number], dtype=np.intp),
        balance=groups.balance,
    )


def _kv_bytes(chips: Chips) -> float:
    """As recipes have the cache: BF16 on Hopper, FP8 on what came after."""
    return 2.0 if chips.generation[0] == GENERATIONS.index("hopper") else 1.0


def case_of(question: Question, prefill: Work, decode: Work, **columns: Array | Flags) -> Case:
    """A deployment in each row. columns: prefill_groups, decode_groups, disaggregated and concurrency."""
    of_rest = np.array([question.engine == "trtllm"])
    isl, osl = (np.array([question.mean_length * length]) for length in (question.isl, question.osl))
    given = {
        "prefill_groups": np.ones(1),
        "decode_groups": np.ones(1),
        "disaggregated": np.zeros(1, dtype=np.bool_),
        "concurrency": np.ones(1),
        **columns,
    }
    return Case(
        prefill=prefill,
        decode=decode,
        isl=isl,
        osl=osl,
        longest=np.where(of_rest, question.isl + question.osl, isl + osl),
        speculative=np.array([question.speculative]),
        engine=np.array([question.engine_number()], dtype=np.intp),
        months=np.array([(NEWEST - EPOCH).days / DAYS_PER_MONTH]),
        early=np.zeros(1, dtype=np.bool_),
        stalls=np.zeros(1, dtype=np.bool_),
        cache_share=np.where(of_rest, CACHE_OF_REST, CACHE_OF_ALL),
        cache_of_rest=of_rest,
        cached=question.prefix_hits * isl,
        **given,  # type: ignore[arg-type]  # names and kinds are those of Case
    )


def room(question: Question, groups: Groups) -> Array:
    """Sequences [G] that have room at each attention of a group."""
    case = case_of(question, (work := work_of(question, groups)), work)
    fits = sequences_that_fit(work, case.longest, case.cache_share, case.cache_of_rest)
    return np.asarray(fits / work.layouts.attentions)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Prompts:
    """[G] seconds of a prefill group: for one prompt, for a full step of them, and for each of those."""

    alone: Array
    together: Array
    each: Array

    @property
    def columns(self) -> tuple[Array, Array, Array]:
        """All of them."""
        return self.alone, self.together, self.each

    def take(self, numbers: NDArray[np.intp]) -> "Prompts":
        """Those, in that order."""
        return Prompts(**{field.name: getattr(self, field.name)[numbers] for field in fields(self)})


def prompts(question: Question, groups: Groups, parameters: Parameters, *, disaggregated: bool) -> Prompts:
    """Of prefill groups."""
    work = work_of(question, groups)
    model = LoopModel(case_of(question, work, work, disaggregated=np.array([disaggregated])), parameters)
    return Prompts(
        **{name: _row(getattr(model, name), len(groups)) for name in ("alone", "together", "each")}
    )


def decode_steps(
    question: Question, groups: Groups, sequences: Array, parameters: Parameters, *, disaggregated: bool
) -> tuple[Array, Array]:
    """Seconds [B, G] of a step with so many sequences [B, G] in a group, the host's part and the engine's
    losses in it, and for each token of an answer; stalls by prompts are in neither. parameters: one row."""
    work = work_of(question, groups)
    model = _Decoding(case_of(question, work, work, disaggregated=np.array([disaggregated])), parameters)
    height = max(1, CHUNK // max(len(groups), 1))
    steps = [
        np.broadcast_to(model.step_seconds(few), few.shape)
        for few in (sequences[start : start + height] for start in range(0, len(sequences), height))
    ]
    seconds = np.concatenate(steps)
    return seconds, seconds / model.accepted


class _Decoding(LoopModel):
    """A closed loop of which only steps of decoding are wanted."""

    def _prompts(self, number: Array) -> Array:
        return np.ones_like(number)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Deployments:
    """One in each row: pools of equal groups, the same pool twice where requests are mixed. sequences: that
    decode in each decode group. concurrency: requests in the whole deployment."""

    disaggregated: Flags
    prefill: Groups
    decode: Groups
    prefill_groups: Array
    decode_groups: Array
    sequences: Array
    concurrency: Array

    def __len__(self) -> int:
        return len(self.sequences)

    @property
    def chips(self) -> Array:
        apart = self.prefill_groups * self.prefill.ranks + self.decode_groups * self.decode.ranks
        return np.where(self.disaggregated, apart, self.decode_groups * self.decode.ranks)

    def take(self, numbers: NDArray[np.intp]) -> "Deployments":
        """Those, in that order."""
        return Deployments(
            **{field.name: _taken(getattr(self, field.name), numbers) for field in fields(self)}
        )

    def joined(self, other: "Deployments") -> "Deployments":
        """These, and then those."""
        columns: dict[str, Any] = {}
        for field in fields(self):
            first, second = getattr(self, field.name), getattr(other, field.name)
            columns[field.name] = (
                first.joined(second) if isinstance(first, Groups) else np.concatenate([first, second])
            )
        return Deployments(**columns)


def _taken(column: Any, numbers: NDArray[np.intp]) -> Any:
    return column.take(numbers) if isinstance(column, Groups) else column[numbers]


def measured(question: Question, deployments: Deployments, parameters: Parameters) -> Loop:
    """[K, R]: as `rackscale validate` predicts benchmarks. Copies of a mixed group get requests in turn, so
    each is a deployment of its own."""
    copies = np.where(deployments.disaggregated, 1.0, deployments.decode_groups)
    case = case_of(
        question,
        work_of(question, deployments.prefill),
        work_of(question, deployments.decode),
        disaggregated=deployments.disaggregated,
        prefill_groups=deployments.prefill_groups / copies,
        decode_groups=deployments.decode_groups / copies,
        concurrency=deployments.concurrency / copies,
    )
    return closed_loop(case, parameters)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Steady:
    """[R]: seconds of the median request, input and output tokens per second and chip, requests in the whole
    deployment, and how busy its prefill ranks would have to be; above 1 the batch is never reached."""

    tpot_s: Array
    ttft_s: Array
    tokens_per_s_per_chip: Array
    concurrency: Array
    utilisation: Array


def steady(
    question: Question, deployments: Deployments, prompts: Prompts, seconds: Array, parameters: Parameters
) -> Steady:
    """The closed loop's steady state in which each decode group holds that many sequences. prompts and
    seconds [R]: what was found of the pools. All are of one role."""
    parts = []
    for start in range(0, len(deployments), CHUNK):
        numbers = np.arange(start, min(start + CHUNK, len(deployments)))
        few = prompts.take(numbers)
        parts.append(_AtBatch(question, deployments.take(numbers), few, parameters).solved(seconds[numbers]))
    names = [field.name for field in fields(Steady)]
    return Steady(
        **{name: np.concatenate([getattr(part, name) for part in parts] or [np.zeros(0)]) for name in names}
    )


class _AtBatch(_Decoding):
    """The closed loop's equations around known pools."""

    def __init__(
        self, question: Question, deployments: Deployments, prompts: Prompts, parameters: Parameters
    ) -> None:
        case = case_of(
            question,
            work_of(question, deployments.prefill),
            work_of(question, deployments.decode),
            disaggregated=deployments.disaggregated[:1],
            prefill_groups=deployments.prefill_groups,
            decode_groups=deployments.decode_groups,
        )
        super().__init__(case, parameters)
        self.alone, self.together, self.each = prompts.alone[None], prompts.together[None], prompts.each[None]
        self.sequences = deployments.sequences

    def solved(self, seconds: Array) -> Steady:
        """With decode steps of so many seconds [R]."""
        apart, osl = bool(self.case.disaggregated[0]), self.case.osl
        decoding = self.sequences * self.case.decode_groups
        busy = wanted = np.zeros_like(self.alone)
        for _ in range(1 if apart else ITERATIONS):
            stalled = decoding / osl * self._served(busy) * self.of_engine["interference"]
            tpot = seconds / self.accepted + (0.0 if apart else stalled)
            rate = decoding / (osl * tpot)
            wanted = rate * self.each / self.case.prefill_groups
            busy = (busy + np.minimum(wanted, MAX_UTILISATION)) / 2
        busy, ttft = np.minimum(wanted, MAX_UTILISATION), self.alone
        for _ in range(ITERATIONS):
            self.case = replace(self.case, concurrency=rate * ttft + decoding)
            ttft = np.sqrt(ttft * self._waiting(busy, self._served(busy), tpot, seconds[None]))
        self.case = replace(self.case, concurrency=rate * ttft + decoding)
        loop = self.loop(LoopState(tpot, ttft, busy))
        return Steady(
            tpot_s=tpot[0],
            ttft_s=ttft[0],
            tokens_per_s_per_chip=loop.tokens_per_s_per_chip[0],
            concurrency=self.case.concurrency[0],
            utilisation=wanted[0],
        )

    def _served(self, busy: Array) -> Array:
        served: Array = np.exp((1 - busy) * np.log(self.alone) + busy * np.log(self.each))
        return served


def _row(values: Array, count: int) -> Array:
    """The first draw's, one for each layout."""
    return np.asarray(np.broadcast_to(values, (len(np.atleast_2d(values)), count))[0])
