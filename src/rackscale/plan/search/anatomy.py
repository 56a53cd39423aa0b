"""One deployment taken apart: its steps, and what of their time is whose."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rackscale.cost import Batch, Parameters, Work, expert_load, step
from rackscale.plan.closed_loop import _Model
from rackscale.plan.question import Question
from rackscale.plan.search.evaluate import Deployments, case_of, work_of

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class StepPart:
    """A step of a group. factor: of the engine's time over the sum of operators, which host_s is added to.
    slowest: work of the fullest rank's experts over the mean's."""

    work: Work
    batch: Batch
    factor: float
    host_s: float
    seconds: float
    slowest: float


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Anatomy:
    """decode, prefill: a step of each. prompts: in that prefill step. served_s: that a prefill group is busy
    with a prompt. stalled_s: that a token of an answer waits for prompts in the same group. accepted: tokens
    of an answer in a step. fits: sequences with room in the whole deployment."""

    decode: StepPart
    prefill: StepPart
    prompts: float
    served_s: float
    stalled_s: float
    accepted: float
    fits: float


def anatomy(question: Question, one: Deployments, utilisation: float, parameters: Parameters) -> Anatomy:
    """Of a single deployment, under the requests that it was measured at."""
    return _Parts(question, one, parameters).anatomy(question, one, utilisation)


def step_seconds(question: Question, one: Deployments, sequences: float, parameters: Parameters) -> float:
    """Of a decode step of a single deployment's group with so many sequences."""
    return _one(_Parts(question, one, parameters).step_seconds(np.array([sequences])))


class _Parts(_Model):
    """A closed loop that is looked into."""

    def __init__(self, question: Question, one: Deployments, parameters: Parameters) -> None:
        copies = np.where(one.disaggregated, 1.0, one.decode_groups)
        case = case_of(
            question,
            work_of(question, one.prefill),
            work_of(question, one.decode),
            disaggregated=one.disaggregated,
            prefill_groups=one.prefill_groups / copies,
            decode_groups=one.decode_groups / copies,
            concurrency=one.concurrency / copies,
        )
        super().__init__(case, parameters)

    def anatomy(self, question: Question, one: Deployments, utilisation: float) -> Anatomy:
        served = _one(self.alone) ** (1 - utilisation) * _one(self.each) ** utilisation
        decoding, osl = float(one.sequences[0]), question.mean_length * question.osl
        stalled = decoding / osl * served * _one(self.of_engine["interference"])
        copies = 1.0 if one.disaggregated[0] else float(one.decode_groups[0])
        return Anatomy(
            decode=self._decode(one.sequences),
            prefill=self._prefill(),
            prompts=_one(self.together / self.each),
            served_s=served,
            stalled_s=0.0 if one.disaggregated[0] else stalled,
            accepted=_one(self.accepted),
            fits=_one(self.fits) * copies,
        )

    def _decode(self, sequences: Array) -> StepPart:
        work = self.case.decode
        batch = Batch(sequences=sequences, queries=self.queries, context=self.context, prefill=False)
        idle = (
            self.of_engine["host_step"]
            + self.of_engine["host_sequence"] * sequences / work.layouts.attentions
        )
        return self._part(work, batch, _one(idle * self.maturity), _one(self.step_seconds(sequences)))

    def _prefill(self) -> StepPart:
        work, isl = self.case.prefill, self.case.isl
        batch = Batch(
            sequences=(self.together / self.each)[0], queries=isl, context=np.zeros_like(isl), prefill=True
        )
        slower = np.where(
            self.case.disaggregated, self.parameters.by("disaggregated_prefill", self.case.engine), 1.0
        )
        host = self.parameters.by("host_prompt", self.case.engine) * self.maturity * slower
        return self._part(work, batch, _one(host), _one(self.together))

    def _part(self, work: Work, batch: Batch, host_s: float, seconds: float) -> StepPart:
        operators = _one(step(work, batch, self.parameters).total.seconds)
        size = (work.shape.experts, work.shape.top_k)
        tokens = np.ravel(batch.sequences * batch.queries)
        slowest = expert_load.slowest(
            tokens, work.layouts.ep, size, self.parameters["routing_skew"], work.balance
        )
        return StepPart(
            work=work,
            batch=batch,
            factor=(seconds - host_s) / operators,
            host_s=host_s,
            seconds=seconds,
            slowest=_one(slowest),
        )


def _one(values: Array | float) -> float:
    return float(np.ravel(values)[0])
