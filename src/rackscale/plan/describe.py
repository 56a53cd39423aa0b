"""What was found, as a plan says it: pools, figures with their intervals, operators, memory, what binds."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from rackscale.cost.money import usd_per_hour_of, usd_per_mtok
from rackscale.cost.power import tokens_per_s_per_mw, watts_of
from rackscale.plan.beliefs import Beliefs
from rackscale.plan.explain import further, limits, operator_times
from rackscale.plan.interval import interval
from rackscale.plan.memory_shares import memory_shares
from rackscale.plan.metrics import METRICS, metrics
from rackscale.plan.question import Question
from rackscale.plan.queueing import Queue, crowded, stalled
from rackscale.plan.search import Frontier
from rackscale.plan.search.anatomy import Anatomy, anatomy
from rackscale.plan.search.evaluate import measured, work_of
from rackscale.plan.types import Band, MemoryShare, OperatorTime, PlannedDeployment, PlanPoint, PoolPlan
from rackscale.specs import Role

Array = NDArray[np.float64]

FULL = 0.93  # of the room for sequences: more requests would wait for memory
NEARLY = 1.02  # of the interactivity that was asked for
TOKENS_APART = 1024  # prompt tokens of a step are said in whole multiples


def described(question: Question, found: Frontier, beliefs: Beliefs) -> tuple[PlannedDeployment, ...]:
    """Each of a frontier's deployments."""
    if not len(found):
        return ()
    parameters = question.with_skew(beliefs.best)
    sequences = found.deployments.sequences
    fuller = np.array([crowded(float(held)) for held in sequences])
    parts = anatomy(question, found.deployments, found.utilisation, fuller, parameters)
    steps = {
        Role.DECODE: operator_times(parts.decode.work, parts.decode.batch, parameters, parts.decode.factor),
        Role.PREFILL: operator_times(
            parts.prefill.work, parts.prefill.batch, parameters, parts.prefill.factor
        ),
    }
    return tuple(
        _One(question, found, parts, row, {role: all_rows[row] for role, all_rows in steps.items()}).planned(
            bands
        )
        for row, bands in enumerate(_bands(question, found, beliefs))
    )


def _bands(question: Question, found: Frontier, beliefs: Beliefs) -> list[dict[str, Band]]:
    """By metric, for each deployment under the requests that it was found with."""
    best = metrics(measured(question, found.deployments, question.with_skew(beliefs.best)))
    drawn = metrics(measured(question, found.deployments, question.with_skew(beliefs.draws)))
    bands: list[dict[str, Band]] = [{} for _ in range(len(found))]
    for name in METRICS:
        value = np.broadcast_to(best[name], (1, len(found)))[0]
        spread = np.broadcast_to(drawn[name], (len(drawn[name]), len(found)))
        for number, chips in enumerate(found.deployments.chips / found.copies):
            noise = beliefs.noise_of(question.system.name, float(chips), name)
            one = slice(number, number + 1)
            low, high = interval(np.log(value[one]), np.log(spread[:, one]), noise)
            bands[number][name] = Band(
                value=float(value[number]), low=float(np.exp(low[0])), high=float(np.exp(high[0]))
            )
    return bands


class _One:
    """One of the deployments, by its row. kernels: of a step of each role."""

    def __init__(
        self,
        question: Question,
        found: Frontier,
        parts: Anatomy,
        row: int,
        kernels: Mapping[Role, tuple[OperatorTime, ...]],
    ) -> None:
        self.question, self.parts, self.row = question, parts, row
        self.found = found.take(np.array([row]))
        self.deployment = self.found.deployments
        self.apart = bool(self.deployment.disaggregated[0])
        self.roles = (Role.PREFILL, Role.DECODE) if self.apart else (Role.MIXED,)
        self.sequences = float(self.deployment.sequences[0])
        self.steps = {
            role: (*kernels[role], further("host", float(part.host_s[row])))
            for role, part in ((Role.PREFILL, parts.prefill), (Role.DECODE, parts.decode))
        }

    def planned(self, bands: Mapping[str, Band]) -> PlannedDeployment:
        """bands: by metric."""
        groups = self.deployment.decode
        return PlannedDeployment(
            model=self.question.model.name,
            system=self.question.system.name,
            isl=self.question.isl,
            osl=self.question.osl,
            weights=groups.formats[int(groups.weights[0])],
            pools=tuple(self._pool(role) for role in self.roles),
            point=self._point(bands),
            binding=self._binding(),
            operators={role: self._operators(role) for role in self.roles},
            memory={role: self._memory(role) for role in self.roles},
        )

    def _of(self, column: Array) -> float:
        return float(column[self.row])

    @property
    def _prompt_tokens(self) -> float:
        return self.question.mean_length * self.question.isl

    def _pool(self, role: Role) -> PoolPlan:
        one = self.deployment
        is_prefill = role is Role.PREFILL
        groups, number = (one.prefill, one.prefill_groups) if is_prefill else (one.decode, one.decode_groups)
        seats = float(groups.ranks[0] / groups.tp[0])
        tokens = self._of(self.parts.prompts) * self._prompt_tokens / seats
        moe = self.question.model.spec.moe
        return PoolPlan(
            role=role,
            groups=round(float(number[0])),
            ranks=int(groups.ranks[0]),
            tp=int(groups.tp[0]),
            ep=int(groups.ep[0]),
            redundant_experts=int(groups.slots[0]) - (moe.router.num_experts if moe else 1),
            batch_per_rank=0.0 if is_prefill else self.sequences / seats,
            batch_tokens=0 if role is Role.DECODE else max(round(tokens / TOKENS_APART), 1) * TOKENS_APART,
            micro_batches=int(groups.micro_batches[0]),
        )

    def _operators(self, role: Role) -> tuple[OperatorTime, ...]:
        if role is not Role.MIXED:
            return self.steps[role]
        stalled = self._of(self.parts.stalled_s) * self._of(self.parts.accepted)
        return (*self.steps[Role.DECODE], further("stalls by prompts", stalled))

    def _memory(self, role: Role) -> tuple[MemoryShare, ...]:
        if role is Role.PREFILL:
            prompts = self._of(self.parts.prompts)
            work = work_of(self.question, self.deployment.prefill)
            return memory_shares(work, prompts, self._prompt_tokens, prompts)
        length = self.question.mean_length * (self.question.isl + self.question.osl)
        work = work_of(self.question, self.deployment.decode)
        return memory_shares(work, self.sequences, length, self._of(self.parts.fits))

    def _point(self, bands: Mapping[str, Band]) -> PlanPoint:
        question, rate = self.question, bands["tokens_per_s_per_gpu"]
        watts = watts_of(question.system.power_w, question.power)
        price = usd_per_hour_of(question.system.usd_per_chip_hour, question.price)
        return PlanPoint(
            tokens_per_s_per_chip=rate,
            output_tokens_per_s_per_chip=rate.value * question.osl / (question.isl + question.osl),
            tpot_s=bands["tpot"],
            ttft_s=bands["ttft"],
            ttft_p99_s=bands["ttft"].value + self._longer_wait(),
            tpot_p99_s=self._slowest_tpot(),
            tokens_per_s_per_mw=tokens_per_s_per_mw(rate.value, watts),
            usd_per_mtok=usd_per_mtok(rate.value, price),
            chips=int(self.deployment.chips[0]),
            concurrency=float(self.deployment.concurrency[0]),
        )

    def _longer_wait(self) -> float:
        """Seconds that the slowest of a hundred requests waits for prefill beyond the median one, where
        requests come at random to one of the copies. Each prompt of a full step has a server, and the step's
        time."""
        copies, prompts = float(self.found.copies[0]), self._of(self.parts.prompts)
        servers = max(round(float(self.deployment.prefill_groups[0]) / copies * prompts), 1)
        service_s = self._of(self.parts.prefill.seconds)
        queue = Queue(
            arrivals_per_s=float(self.found.utilisation[0]) * servers / service_s,
            service_s=service_s,
            servers=servers,
            service_scv=self.question.length_cv**2,
        )
        return queue.wait_s(0.99) - queue.wait_s(0.5)

    def _slowest_tpot(self) -> float:
        """Of the slowest of a hundred requests that come at random: its group is fuller, and more prompts
        come between its tokens."""
        stalls = self._of(self.parts.stalled_s) * stalled(self.sequences) / self.sequences
        seconds = self._of(self.parts.fuller_s) / self._of(self.parts.accepted) + stalls
        return max(seconds, float(self.found.tpot_s[0]))

    def _binding(self) -> str:
        """Memory where it is full and users would bear more; else what sets most of the chips' time."""
        asked = self.question.interactivity
        is_slow = asked is not None and self.found.tokens_per_s_per_user[0] < asked * NEARLY
        if self.sequences > FULL * self._of(self.parts.fits) and not is_slow:
            return "HBM for KV"
        shares = self._shares()
        return max(shares, key=lambda words: shares[words])

    def _shares(self) -> dict[str, float]:
        """Of all chips' time by what sets it; sums to at most 1."""
        one = self.deployment
        if self.apart:
            prompts = float(one.prefill_groups[0] * one.prefill.ranks[0] / one.chips[0])
            weights = {Role.DECODE: 1 - prompts, Role.PREFILL: prompts * float(self.found.utilisation[0])}
        else:
            stalls = self._of(self.parts.stalled_s)
            token = self._of(self.parts.decode.seconds) / self._of(self.parts.accepted) + stalls
            weights = {Role.DECODE: 1 - stalls / token, Role.PREFILL: stalls / token}
        whole: dict[str, float] = {}
        for role, part in ((Role.DECODE, self.parts.decode), (Role.PREFILL, self.parts.prefill)):
            found = limits(self.steps[role], self._of(part.slowest), prefill=role is Role.PREFILL)
            for words, seconds in found.items():
                whole[words] = whole.get(words, 0.0) + weights[role] * seconds / self._of(part.seconds)
        return whole
