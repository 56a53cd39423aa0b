"""The plan: the best deployment at a level of service, what else there is, and why that is not the best."""

import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace

import numpy as np

from rackscale.core import SpecError
from rackscale.plan.beliefs import Beliefs
from rackscale.plan.describe import described
from rackscale.plan.question import Question
from rackscale.plan.search import Frontier, best, search
from rackscale.plan.types import Alternative, Plan, PlannedDeployment
from rackscale.specs import Role

SHOWN = 24  # deployments of a frontier
LONGER = (1.5, 3.0, 10.0, 30.0, 100.0)  # waits that a level nothing meets is tried with
NARROW_EP = 8  # what one box of eight chips has


def plan(question: Question, beliefs: Beliefs | None = None) -> Plan:
    """The best deployment that meets the question's level of service, the frontier, and other kinds of
    layouts at their best. beliefs: those of the committed fit by default.

    Raises SpecError where a value makes no sense, where the model does not fit the chips, and where nothing
    meets the level of service: then with what comes closest and what binds there.
    """
    started = time.perf_counter()
    believed = Beliefs.of_fit() if beliefs is None else beliefs
    question.check()
    frontier = search(question, believed.best)
    found = best(question, believed.best, frontier)
    if found is None:
        raise _unmet(question, frontier, believed)
    (chosen,) = described(question, found, believed)
    alternatives = tuple(_alternatives(replace(question, chips=found.chips), chosen, believed))
    shown = described(question, _thinned(frontier), believed)
    return Plan(
        model=question.model.name,
        system=question.system.name,
        isl=question.isl,
        osl=question.osl,
        objective=question.objective,
        interactivity=question.interactivity,
        ttft_s=question.ttft_s,
        best=chosen,
        pareto=shown,
        alternatives=alternatives,
        searched=found.searched,
        seconds=time.perf_counter() - started,
    )


def _thinned(frontier: Frontier) -> Frontier:
    """Some of many, evenly in number, the ends among them."""
    numbers = np.unique(np.round(np.linspace(0, len(frontier) - 1, SHOWN)).astype(np.intp))
    return frontier.take(numbers)


def _unmet(question: Question, frontier: Frontier, beliefs: Beliefs) -> SpecError:
    wishes = []
    if question.interactivity is not None:
        wishes.append(f"{question.interactivity:g} tokens/s per user")
    if question.ttft_s is not None:
        wishes.append(f"a first token in {question.ttft_s:g} s")
    what = f"nothing gives {' and '.join(wishes)} with {question.model.name} on {question.system.name}"
    asked, found = question, _soonest(question, beliefs)
    if found is None:
        asked = replace(question, ttft_s=None)
        fastest = frontier if len(frontier) else search(asked, beliefs.best)
        found = fastest.take(np.zeros(1, dtype=np.intp))
    (closest,) = described(asked, found, beliefs)
    words = f"the closest is {1 / closest.point.tpot_s.value:.3g} tokens/s per user"
    if question.ttft_s is not None:
        words += f" with a first token after {closest.point.ttft_s.value:.2g} s"
    return SpecError(what, hint=f"{words}, bound by {closest.binding}")


def _soonest(question: Question, beliefs: Beliefs) -> Frontier | None:
    """What meets the level when users wait somewhat longer for their first token."""
    if question.ttft_s is None:
        return None
    longer = (best(replace(question, ttft_s=question.ttft_s * times), beliefs.best) for times in LONGER)
    return next((found for found in longer if found is not None), None)


def _alternatives(question: Question, chosen: PlannedDeployment, beliefs: Beliefs) -> Iterator[Alternative]:
    """Other kinds of layouts, each at its best, where there are any."""
    for kind, other in _others(question, chosen):
        found = None
        with suppress(SpecError):  # what does not fit is no alternative
            found = best(other, beliefs.best)
        if found is not None:
            (deployment,) = described(other, found, beliefs)
            yield Alternative(deployment=deployment, why_not=_why_not(kind, deployment, chosen))


def _others(question: Question, chosen: PlannedDeployment) -> Iterator[tuple[str, Question]]:
    mixed = chosen.pools[0].role is Role.MIXED
    if question.role == "auto":
        yield (
            ("pools of their own for prompts", replace(question, role="disaggregated"))
            if mixed
            else ("prompts and answers in the same groups", replace(question, role="mixed"))
        )
    if max(pool.ep for pool in chosen.pools) > NARROW_EP:
        yield f"experts over {NARROW_EP} chips at most", replace(question, max_ep=NARROW_EP)
    if question.weights == "auto" and chosen.weights != question.model.weights:
        yield (
            f"weights as published, {question.model.weights}",
            replace(question, weights=question.model.weights),
        )
    if question.redundant is None and any(pool.redundant_experts for pool in chosen.pools):
        yield "no redundant experts", replace(question, redundant=0)


def _why_not(kind: str, other: PlannedDeployment, chosen: PlannedDeployment) -> str:
    """In numbers: how much less it gives, and what binds it."""
    ratio = other.point.tokens_per_s_per_chip.value / chosen.point.tokens_per_s_per_chip.value
    gives = f"{1 - ratio:.0%} fewer tokens/s per chip" if ratio < 1 else "no more of the whole budget's chips"
    return f"{kind}: {gives}, bound by {other.binding}"
