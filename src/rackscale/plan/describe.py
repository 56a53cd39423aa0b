"""What was found, as a plan says it: pools, figures with their intervals, operators, memory, what binds."""

import numpy as np
from numpy.typing import NDArray

from rackscale.cost import Parameters
from rackscale.cost.money import usd_per_hour_of, usd_per_mtok
from rackscale.cost.power import tokens_per_s_per_mw, watts_of
from rackscale.plan.beliefs import Beliefs
from rackscale.plan.explain import further, limits, operator_times
from rackscale.plan.interval import interval
from rackscale.plan.memory_shares import memory_shares
from rackscale.plan.metrics import METRICS, metrics
from rackscale.plan.question import Question
from rackscale.plan.queueing import Queue, crowded, stalled
from rackscale.plan.search import Deployments, Frontier
from rackscale.plan.search.anatomy import Anatomy, StepPart, anatomy, step_seconds
from rackscale.plan.search.evaluate import measured
from rackscale.plan.types import Band, OperatorTime, PlannedDeployment, PlanPoint, PoolPlan
from rackscale.specs import Role

Array = NDArray[np.float64]

FULL = 0.93  # of the room for sequences: more requests would wait for memory
TOKENS_APART = 1024  # prompt tokens of a step are said in whole multiples


def described(question: Question, found: Frontier, beliefs: Beliefs) -> tuple[PlannedDeployment, ...]:
    """Each of a frontier's deployments."""
    bands = _bands(question, found, beliefs)
    return tuple(
        _described(question, found.take(np.array([number])), bands[number], beliefs)
        for number in range(len(found))
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


def _described(
    question: Question, found: Frontier, bands: dict[str, Band], beliefs: Beliefs
) -> PlannedDeployment:
    parameters = question.with_skew(beliefs.best)
    one = found.deployments
    parts = anatomy(question, one, float(found.utilisation[0]), parameters)
    apart = bool(one.disaggregated[0])
    roles = (Role.PREFILL, Role.DECODE) if apart else (Role.MIXED,)
    operators = {role: _operators(role, parts, parameters) for role in roles}
    if not apart and parts.stalled_s:
        waited = further("stalls by prompts", parts.stalled_s * parts.accepted)
        operators[Role.MIXED] = (*operators[Role.MIXED], waited)
    length = question.mean_length * (question.isl + question.osl)
    room = parts.fits / float(one.decode_groups[0])
    memory = {
        role: memory_shares(
            parts.prefill.work, parts.prompts, question.mean_length * question.isl, parts.prompts
        )
        if role is Role.PREFILL
        else memory_shares(parts.decode.work, float(one.sequences[0]), length, room)
        for role in roles
    }
    return PlannedDeployment(
        model=question.model.name,
        system=question.system.name,
        isl=question.isl,
        osl=question.osl,
        weights=one.decode.formats[int(one.decode.weights[0])],
        pools=_pools(question, one, parts),
        point=_point(question, found, bands, parts, parameters),
        binding=_binding(question, found, parts, parameters),
        operators=operators,
        memory=memory,
    )


def _pools(question: Question, one: Deployments, parts: Anatomy) -> tuple[PoolPlan, ...]:
    tokens = parts.prompts * question.mean_length * question.isl
    each = tokens / float(one.prefill.ranks[0] / one.prefill.tp[0])
    batch_tokens = max(round(each / TOKENS_APART), 1) * TOKENS_APART
    batch = float(one.sequences[0] * one.decode.tp[0] / one.decode.ranks[0])
    if not one.disaggregated[0]:
        return (_pool(question, Role.MIXED, one, batch, batch_tokens),)
    return (
        _pool(question, Role.PREFILL, one, 0.0, batch_tokens),
        _pool(question, Role.DECODE, one, batch, 0),
    )


def _pool(question: Question, role: Role, one: Deployments, batch: float, batch_tokens: int) -> PoolPlan:
    groups, number = (
        (one.prefill, one.prefill_groups) if role is Role.PREFILL else (one.decode, one.decode_groups)
    )
    moe = question.model.spec.moe
    experts = moe.router.num_experts if moe else 1
    return PoolPlan(
        role=role,
        groups=round(float(number[0])),
        ranks=int(groups.ranks[0]),
        tp=int(groups.tp[0]),
        ep=int(groups.ep[0]),
        redundant_experts=int(groups.slots[0]) - experts,
        batch_per_rank=batch,
        batch_tokens=batch_tokens,
        micro_batches=int(groups.micro_batches[0]),
    )


def _operators(role: Role, parts: Anatomy, parameters: Parameters) -> tuple[OperatorTime, ...]:
    own = parts.prefill if role is Role.PREFILL else parts.decode
    kernels = operator_times(own.work, own.batch, parameters, own.factor)
    return (*kernels, further("host", own.host_s))


def _point(
    question: Question, found: Frontier, bands: dict[str, Band], parts: Anatomy, parameters: Parameters
) -> PlanPoint:
    one, rate = found.deployments, bands["tokens_per_s_per_gpu"]
    watts = watts_of(question.system.power_w, question.power)
    price = usd_per_hour_of(question.system.usd_per_chip_hour, question.price)
    return PlanPoint(
        tokens_per_s_per_chip=rate,
        output_tokens_per_s_per_chip=rate.value * question.osl / (question.isl + question.osl),
        tpot_s=bands["tpot"],
        ttft_s=bands["ttft"],
        ttft_p99_s=bands["ttft"].value + _longer_wait(question, found, parts),
        tpot_p99_s=_slowest_tpot(question, found, parts, parameters),
        tokens_per_s_per_mw=tokens_per_s_per_mw(rate.value, watts),
        usd_per_mtok=usd_per_mtok(rate.value, price),
        chips=int(one.chips[0]),
        concurrency=float(one.concurrency[0]),
    )


def _requests_per_s(question: Question, found: Frontier) -> float:
    """Of one of the copies."""
    chips = float(found.deployments.chips[0] / found.copies[0])
    tokens = question.mean_length * (question.isl + question.osl)
    return float(found.tokens_per_s_per_chip[0]) * chips / tokens


def _longer_wait(question: Question, found: Frontier, parts: Anatomy) -> float:
    """Seconds that the slowest of a hundred requests waits for a prefill group beyond the median one, where
    requests come at random."""
    groups = round(float(found.deployments.prefill_groups[0] / found.copies[0]))
    queue = Queue(
        arrivals_per_s=_requests_per_s(question, found),
        service_s=parts.served_s,
        servers=groups,
        service_scv=question.length_cv**2,
    )
    return queue.wait_s(0.99) - queue.wait_s(0.5)


def _slowest_tpot(question: Question, found: Frontier, parts: Anatomy, parameters: Parameters) -> float:
    """Of the slowest of a hundred requests that come at random: its group is fuller, and more prompts come
    between its tokens."""
    own = float(found.deployments.sequences[0])
    most = parts.fits / float(found.deployments.decode_groups[0])
    fuller = min(crowded(own), max(most, own))
    seconds = step_seconds(question, found.deployments, fuller, parameters) / parts.accepted
    interrupted = parts.stalled_s * stalled(own) / own if parts.stalled_s else 0.0
    return max(seconds + interrupted, float(found.tpot_s[0]))


def _binding(question: Question, found: Frontier, parts: Anatomy, parameters: Parameters) -> str:
    """Memory where it is full and users would bear more; else what sets most of the chips' time."""
    one = found.deployments
    held = float(one.sequences[0] * one.decode_groups[0])
    is_slow = (
        question.interactivity is not None and found.tokens_per_s_per_user[0] < question.interactivity * 1.02
    )
    if held > FULL * parts.fits and not is_slow:
        return "HBM for KV"
    shares = _shares(found, parts, parameters)
    return max(shares, key=lambda words: shares[words])


def _shares(found: Frontier, parts: Anatomy, parameters: Parameters) -> dict[str, float]:
    """Of all chips' time by what sets it; sums to at most 1."""
    one, chips = found.deployments, float(found.deployments.chips[0])
    decode = _limits(parts.decode, parameters, prefill=False)
    prefill = _limits(parts.prefill, parameters, prefill=True)
    if one.disaggregated[0]:
        prompts = float(one.prefill_groups[0] * one.prefill.ranks[0]) / chips
        weights = (1 - prompts, prompts * float(found.utilisation[0]))
    else:
        token = parts.decode.seconds / parts.accepted + parts.stalled_s
        weights = (1 - parts.stalled_s / token, parts.stalled_s / token)
    return _added((decode, weights[0]), (prefill, weights[1]))


def _limits(own: StepPart, parameters: Parameters, *, prefill: bool) -> dict[str, float]:
    kernels = operator_times(own.work, own.batch, parameters, own.factor)
    found = limits((*kernels, further("host", own.host_s)), own.slowest, prefill=prefill)
    return {words: seconds / own.seconds for words, seconds in found.items()}


def _added(*weighted: tuple[dict[str, float], float]) -> dict[str, float]:
    whole: dict[str, float] = {}
    for shares, weight in weighted:
        for words, share in shares.items():
            whole[words] = whole.get(words, 0.0) + weight * share
    return whole
