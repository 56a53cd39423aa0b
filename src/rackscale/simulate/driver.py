"""The driver with a virtual clock: the engine's commands are answered by how long they would take.

It decides nothing. What is scheduled, routed, balanced and recovered is what the engine says, as under the
server's driver; events, commands and the log are the same.
"""

from collections.abc import Callable, Sequence
from heapq import heappop, heappush
from typing import Protocol

import numpy as np

from rackscale.core import (
    Arrive,
    Command,
    Event,
    Finish,
    GroupId,
    PlanId,
    RankLost,
    RankResult,
    Refuse,
    RunStep,
    Seconds,
    SpecError,
    StepDone,
    StepPlan,
    column,
)
from rackscale.engine import Engine, entry_line, header_line

NO_TOKEN = 0  # what is sampled: nobody reads it, and no request is to end by it


class Costs(Protocol):
    """How long things take."""

    def step(self, plan: StepPlan) -> float:
        """Seconds of a group's step, from when the group is free until its tokens and its KV have arrived."""
        ...


class Driver:
    """An engine, its future events, and the time.

    costs: what steps take. log: is given the lines of a log as a live server writes it. told: is given every
    event's time and commands; it may plan further events with `at`. Events of one time happen in the order in
    which they were planned, so a run is the same every time.
    """

    def __init__(
        self,
        engine: Engine,
        costs: Costs,
        *,
        log: Callable[[bytes], object] | None = None,
        told: Callable[[float, Sequence[Command]], None] | None = None,
    ) -> None:
        self.now_s = 0.0
        self.num_living = 0
        self._engine, self._costs, self._log, self._told = engine, costs, log, told
        self._events: list[tuple[float, int, Event]] = []
        self._num_planned = 0
        self._free_s: dict[GroupId, float] = {}
        self._in_flight: dict[GroupId, set[PlanId]] = {}
        if log is not None:
            log(header_line(engine.deployment))

    def at(self, when_s: float, event: Event) -> None:
        """Plan an event. Raises SpecError for one in the past."""
        if not when_s >= self.now_s:
            raise SpecError(
                f"an event at {when_s:g} s, and it is {self.now_s:g} s", hint="let times never fall"
            )
        self._num_planned += 1
        heappush(self._events, (when_s, self._num_planned, event))

    def run(self, until_s: float = float("inf")) -> None:
        """Have events happen, in order, until none is left or the next one is later."""
        while self._events and self._events[0][0] <= until_s:
            self.now_s, _, event = heappop(self._events)
            if self._is_void(event):
                continue
            commands = self._engine.handle(event, Seconds(self.now_s))
            self.num_living += isinstance(event, Arrive)
            if self._log is not None:
                self._log(entry_line(Seconds(self.now_s), event, commands))
            for command in commands:
                self._obey(command)
            if self._told is not None:
                self._told(self.now_s, commands)

    def _is_void(self, event: Event) -> bool:
        """Whether it is an answer to a step that went with a rank. Takes note of steps that end."""
        match event:
            case StepDone(group=group, plan=plan):
                if plan not in self._in_flight[group]:
                    return True
                self._in_flight[group].remove(plan)
            case RankLost(group=group):
                self._in_flight.get(group, set()).clear()
                self._free_s[group] = self.now_s
        return False

    def _obey(self, command: Command) -> None:
        match command:
            case RunStep(plan=plan):
                start_s = max(self.now_s, self._free_s.get(plan.group, 0.0))
                end_s = start_s + self._costs.step(plan)
                self._free_s[plan.group] = end_s
                self._in_flight.setdefault(plan.group, set()).add(plan.plan)
                self.at(end_s, StepDone(group=plan.group, plan=plan.plan, ranks=_results(plan)))
            case Finish() | Refuse():
                self.num_living -= 1


def _results(plan: StepPlan) -> tuple[RankResult, ...]:
    """A token for each sequence that samples one."""
    return tuple(
        RankResult(tokens=column(np.full(int(np.sum(rank.samples)), NO_TOKEN)), expert_loads=column([]))
        for rank in plan.ranks
    )
