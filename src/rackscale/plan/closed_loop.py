"""A deployment under a fixed number of requests, each answered by a new one: what benchmarks measure.

Prompts queue at the prefill ranks, answers share the decode ranks. Steady state: a request's time is its
prompt's plus its answer's, and concurrency over that time is the rate (Little's law); speeds depend on
the rate again, so both are found by iteration. Everything is [K, R]: parameters' rows by cases.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rackscale.cost import Batch, Parameters, Step, Work, step
from rackscale.cost.host_memory import cache_read
from rackscale.cost.memory import sequences_that_fit
from rackscale.cost.priors import PRIORS

Array = NDArray[np.float64]

REQUESTS_PER_SEAT = 10.0  # a benchmark's requests over its concurrency (InferenceX: num_prompts)
MAX_UTILISATION = 0.98
ITERATIONS = 14
OF_ENGINE = tuple(name for name, prior in PRIORS.items() if prior.by == ("engine",))
POOLS_MATURE_MONTHS = 1.0  # after the epoch; what has been young is not, and does not go on for ever
POLLED_FROM = 16.0  # concurrency from which recipes poll for new requests seldom


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Case:
    """Columns [R]. prefill, decode: the groups of each pool, the same where requests are mixed; *_groups: how
    many. isl, osl: mean tokens. longest: tokens that a request may take. engine: number in `GROUPS`, -1 for
    one never measured. months: since 2026-02-01. early: whether pools ran the first releases that had them.
    stalls: whether the engine compiled kernels during the run. cache_share, cache_of_rest: see
    `memory.sequences_that_fit`. cached: tokens of a prompt that come out of the host's memory."""

    prefill: Work
    decode: Work
    prefill_groups: Array
    decode_groups: Array
    disaggregated: NDArray[np.bool_]
    isl: Array
    osl: Array
    longest: Array
    concurrency: Array
    speculative: NDArray[np.bool_]
    engine: NDArray[np.intp]
    months: Array
    early: NDArray[np.bool_]
    stalls: NDArray[np.bool_]
    cache_share: Array
    cache_of_rest: NDArray[np.bool_]
    cached: Array | float = 0.0

    @property
    def chips(self) -> Array:
        apart = (
            self.prefill_groups * self.prefill.layouts.ranks + self.decode_groups * self.decode.layouts.ranks
        )
        return np.where(self.disaggregated, apart, self.decode_groups * self.decode.layouts.ranks)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Loop:
    """[K, R]. tpot_s, ttft_s: of the median request. tokens_per_s_per_chip: input and output, over a whole
    benchmark with its start and end. sequences: that decode together in a decode group. utilisation: of the
    prefill ranks. fits: sequences that have room in the whole deployment. prompt_s: of a prefill group, for
    each of many prompts."""

    tpot_s: Array
    ttft_s: Array
    tokens_per_s_per_chip: Array
    sequences: Array
    utilisation: Array
    fits: Array
    prompt_s: Array


def closed_loop(case: Case, parameters: Parameters, iterations: int = ITERATIONS) -> Loop:
    """The steady state of each case."""
    model = LoopModel(case, parameters)
    state = model.start()
    for _ in range(iterations):
        state = model.improved(state)
    return model.loop(state)


@dataclass(frozen=True, slots=True, eq=False)
class LoopState:
    """What is iterated, [K, R]: seconds per token and to the first one, and how busy prefill ranks are."""

    tpot: Array
    ttft: Array
    utilisation: Array


class LoopModel:
    """What does not change from one iteration to the next."""

    def __init__(self, case: Case, parameters: Parameters) -> None:
        self.case, self.parameters = case, parameters
        self.of_engine = of_engine = {name: parameters.by(name, case.engine) for name in OF_ENGINE}
        young = np.where(case.disaggregated, np.minimum(case.months, POOLS_MATURE_MONTHS), 0.0)
        self.maturity = np.exp(-of_engine["maturity"] * case.months - of_engine["maturity_pools"] * young)
        self.accepted = np.where(case.speculative, 1 + of_engine["accepted_drafts"], 1.0)
        self.queries = np.where(case.speculative, 1 + parameters["verified_drafts"], 1.0)
        self.attention_dp = case.decode.layouts.attentions > 1
        self.context = case.isl + case.osl / 2
        self.fits = (
            np.maximum(
                sequences_that_fit(case.decode, case.longest, case.cache_share, case.cache_of_rest), 2.0
            )
            * case.decode_groups
        )
        seats = case.prefill.layouts.attentions
        at_once = np.maximum(of_engine["prompt_tokens"] / case.isl, 1.0) * seats
        self.alone = self._prompts(np.ones_like(at_once))
        self.together = self._prompts(at_once)
        self.each = self.together / at_once

    def _prompts(self, number: Array) -> Array:
        """Seconds for so many prompts in one step of a prefill group."""
        case, engine = self.case, self.of_engine
        cached = np.broadcast_to(case.cached, case.isl.shape)
        batch = Batch(sequences=number, queries=case.isl - cached, context=cached, prefill=True)
        read = cache_read(case.prefill, number, cached)
        seconds = (step(case.prefill, batch, self.parameters).total | read).seconds
        slower = np.where(case.disaggregated, engine["disaggregated_prefill"], 1.0)
        ideal = seconds * engine["prefill_slowdown"] + engine["host_prompt"]
        slower = slower * np.exp(np.where(case.early, engine["early_prefill"], 0.0))
        return ideal * self.maturity * slower

    def start(self) -> LoopState:
        same = np.ones_like(self.alone)
        return LoopState(0.02 * same, self.alone, 0.3 * same)

    def decoding(self, state: LoopState) -> Array:
        """Sequences that decode in the whole deployment."""
        case = self.case
        seconds = case.osl * state.tpot
        return np.minimum(
            case.concurrency * seconds / (state.ttft + seconds), np.minimum(self.fits, case.concurrency)
        )

    def decode_step(self, sequences: Array) -> Step:
        """One step of a decode group."""
        batch = Batch(sequences=sequences, queries=self.queries, context=self.context, prefill=False)
        return step(self.case.decode, batch, self.parameters)

    def step_seconds(self, sequences: Array) -> Array:
        """The same with the host's part and what the engine loses."""
        case, engine = self.case, self.of_engine
        seconds = self.decode_step(sequences).total.seconds
        drafted = np.where(case.speculative, 1 + engine["draft_cost"], 1.0)
        lost = np.where(case.disaggregated, engine["disaggregated_decode"], 1.0)
        lost = lost * np.where(self.attention_dp, engine["attention_dp_decode"], 1.0)
        host = engine["host_step"] + engine["host_sequence"] * sequences / case.decode.layouts.attentions
        lost = lost * np.exp(np.where(case.early, engine["early_decode"], 0.0))
        return (seconds * drafted * lost + host) * self.maturity

    def improved(self, state: LoopState) -> LoopState:
        """One more iteration, damped by half."""
        case, engine = self.case, self.of_engine
        busy = state.utilisation
        decoding = self.decoding(state)
        own = np.maximum(decoding / case.decode_groups, 1.0)
        seconds = self.step_seconds(own)
        served = np.exp((1 - busy) * np.log(self.alone) + busy * np.log(self.each))
        stalled = np.where(case.disaggregated, 0.0, decoding / case.osl * served * engine["interference"])
        tpot = seconds / self.accepted + stalled
        rate = case.concurrency / (state.ttft + case.osl * state.tpot)
        utilisation = np.clip(rate * self.each / case.prefill_groups, 0.0, MAX_UTILISATION)
        ttft = self._waiting(busy, served, tpot, seconds)
        return LoopState(np.sqrt(state.tpot * tpot), np.sqrt(state.ttft * ttft), (busy + utilisation) / 2)

    def _waiting(self, busy: Array, served: Array, tpot: Array, seconds: Array) -> Array:
        """Seconds to the first token."""
        case, parameters, engine = self.case, self.parameters, self.of_engine
        apart, concurrency, groups = case.disaggregated, case.concurrency, case.prefill_groups
        whole = np.minimum(self.together, self.alone * np.maximum(concurrency / groups, 1.0))
        own = self.alone * (1 - busy) + np.maximum(self.alone, whole) * busy
        queue = np.where(apart, parameters["queue_disaggregated"], parameters["queue"])
        queued = np.minimum(queue * served / groups * busy / (1 - busy) / 2, concurrency * served / groups)
        wave = np.where(apart, 0.0, parameters.by("wave", case.decode.recipe) * concurrency * served)
        waited = own + queued + wave
        answered = case.osl * tpot
        saturated = concurrency * self.each / groups - answered
        waited = np.where(apart, np.maximum(waited, saturated), waited)
        admitted = np.where(concurrency > self.fits, (concurrency / self.fits - 1) * answered, 0.0)
        polled = parameters.by("poll_steps", case.decode.recipe) * np.minimum(
            (concurrency - 1) / (POLLED_FROM - 1), 1.0
        )
        gathered = np.where(self.attention_dp, engine["attention_dp_wait"], 0.0)
        moved = engine["transfer"] + engine["transfer_token"] * case.isl
        stepping = np.where(apart, moved, tpot / 2 + (polled + gathered) * seconds)
        return waited + admitted + engine["first_token"] + stepping

    def loop(self, state: LoopState) -> Loop:
        case, parameters = self.case, self.parameters
        first = np.minimum(case.concurrency, self.fits) * self.each / case.prefill_groups / 2
        compiled = np.where(
            case.stalls, parameters.by("compile_stall", case.decode.precision.expert_kind), 0.0
        )
        request = state.ttft + case.osl * state.tpot + (first + compiled) / REQUESTS_PER_SEAT
        ramp = np.where(case.disaggregated, parameters["ramp_disaggregated"], parameters["ramp"])
        tokens = case.concurrency * (case.isl + case.osl)
        return Loop(
            tpot_s=state.tpot,
            ttft_s=state.ttft,
            tokens_per_s_per_chip=tokens / request / case.chips / ramp,
            sequences=self.decoding(state) / case.decode_groups,
            utilisation=state.utilisation,
            fits=self.fits,
            prompt_s=self.each,
        )
