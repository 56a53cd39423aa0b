"""Deployments taken apart: their steps, and what of the time is whose."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rackscale.cost import Batch, Parameters, Work, expert_load, step
from rackscale.plan.closed_loop import LoopModel
from rackscale.plan.question import Question
from rackscale.plan.search.evaluate import Deployments, case_of, work_of

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class StepPart:
    """A step of a group, [R]. factor: of the engine's time over the sum of operators, before host_s is added.
    slowest: work of the fullest rank's experts over the mean's."""

    work: Work
    batch: Batch
    factor: Array
    host_s: Array
    seconds: Array
    slowest: Array


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Anatomy:
    """[R]. decode, prefill: a step of each. prompts: in that prefill step. stalled_s: that a token of an
    answer waits for prompts in the same group. accepted: tokens of an answer in a step. fits: sequences with
    room in a decode group. fuller_s: of a decode step with as many sequences as were asked about besides."""

    decode: StepPart
    prefill: StepPart
    prompts: Array
    stalled_s: Array
    accepted: Array
    fits: Array
    fuller_s: Array


def anatomy(
    question: Question, deployments: Deployments, utilisation: Array, fuller: Array, parameters: Parameters
) -> Anatomy:
    """Of deployments under the requests that they were measured at. fuller [R]: sequences of a decode group
    that are asked about besides; no more than fit are looked at."""
    return _Parts(question, deployments, parameters).anatomy(question, deployments, utilisation, fuller)


class _Parts(LoopModel):
    """A closed loop that is looked into."""

    def __init__(self, question: Question, deployments: Deployments, parameters: Parameters) -> None:
        case = case_of(
            question,
            work_of(question, deployments.prefill),
            work_of(question, deployments.decode),
            disaggregated=deployments.disaggregated,
        )
        super().__init__(case, parameters)
        self.count = len(deployments)

    def anatomy(
        self, question: Question, deployments: Deployments, utilisation: Array, fuller: Array
    ) -> Anatomy:
        alone, each, sequences = self._row(self.alone), self._row(self.each), deployments.sequences
        served = alone ** (1 - utilisation) * each**utilisation
        osl = question.mean_length * question.osl
        stalled = sequences / osl * served * self._row(self.of_engine["interference"])
        fits = self._row(self.fits)
        most = np.minimum(fuller, np.maximum(fits, sequences))
        return Anatomy(
            decode=self._decode(sequences),
            prefill=self._prefill(),
            prompts=self._row(self.together / self.each),
            stalled_s=np.where(deployments.disaggregated, 0.0, stalled),
            accepted=self._row(self.accepted),
            fits=fits,
            fuller_s=self._row(self.step_seconds(most)),
        )

    def _decode(self, sequences: Array) -> StepPart:
        work, engine = self.case.decode, self.of_engine
        batch = Batch(sequences=sequences, queries=self.queries, context=self.context, prefill=False)
        idle = engine["host_step"] + engine["host_sequence"] * sequences / work.layouts.attentions
        return self._part(work, batch, idle * self.maturity, self.step_seconds(sequences))

    def _prefill(self) -> StepPart:
        work, isl = self.case.prefill, self.case.isl
        prompts = self._row(self.together / self.each)
        batch = Batch(sequences=prompts, queries=isl, context=np.zeros_like(isl), prefill=True)
        slower = np.where(self.case.disaggregated, self.of_engine["disaggregated_prefill"], 1.0)
        host = self.of_engine["host_prompt"] * self.maturity * slower
        return self._part(work, batch, host, self.together)

    def _part(self, work: Work, batch: Batch, host_s: Array, seconds: Array) -> StepPart:
        operators = step(work, batch, self.parameters).total.seconds
        size = (work.shape.experts, work.shape.top_k)
        tokens = np.ravel(batch.sequences * batch.queries) / work.layouts.micro_batches
        slowest = expert_load.slowest(
            tokens, work.layouts.ep, size, self.parameters["routing_skew"], work.balance
        )
        return StepPart(
            work=work,
            batch=batch,
            factor=self._row((seconds - host_s) / operators),
            host_s=self._row(host_s),
            seconds=self._row(seconds),
            slowest=self._row(slowest),
        )

    def _row(self, values: Array) -> Array:
        """[R] of what is the same for all layouts, or different."""
        return np.asarray(np.broadcast_to(values, (1, self.count))[0])
