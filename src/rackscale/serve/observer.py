"""What a watcher wants to know of a running engine: rates over the last second, and what happened."""

import time
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from rackscale.core import Emit, Finish, PlaceExperts, RankId, Refuse, StepPlan
from rackscale.engine import EngineStats, GroupStats
from rackscale.runtime.answer import RankAnswer
from rackscale.serve.fleet import Fleet
from rackscale.serve.group import Group, State
from rackscale.serve.rack_state import (
    ExpertsView,
    GroupView,
    RackEvent,
    RackState,
    RankStatus,
    RankView,
    TransfersView,
)

WINDOW_S = 1.0
NUM_EVENTS = 50
STATUS = {
    State.DOWN: RankStatus.LOST,
    State.STARTING: RankStatus.STARTING,
    State.UP: RankStatus.UP,
    State.ENDING: RankStatus.LOST,
}


@dataclass(slots=True)
class _Sums:
    """Of one rank, from the start."""

    num_tokens: int = 0
    step_s: float = 0.0
    wait_s: float = 0.0
    copy_s: float = 0.0


@dataclass(slots=True)
class _Total:
    """Of the whole rack, from the start."""

    num_sampled: int = 0
    num_finished: int = 0
    num_pushed_bytes: int = 0
    num_moved: int = 0
    num_steps: list[int] = field(default_factory=list)
    step_s: list[float] = field(default_factory=list)
    ranks: list[list[_Sums]] = field(default_factory=list)


class Observer:
    """Adds up as things happen; `look` makes a state of it. Called in one thread."""

    def __init__(self, model: str, num_ranks: Sequence[int]) -> None:
        self._model, self._started = model, time.monotonic()
        self._total = _Total(
            num_steps=[0] * len(num_ranks),
            step_s=[0.0] * len(num_ranks),
            ranks=[[_Sums() for _ in range(count)] for count in num_ranks],
        )
        self._events: deque[RackEvent] = deque(maxlen=NUM_EVENTS)
        self._roles: dict[int, str] = {}
        self._before: deque[tuple[float, _Total]] = deque([(self._started, _copy(self._total))])

    def note(self, what: str) -> None:
        """Something worth a line."""
        self._events.appendleft(RackEvent(time_s=time.time(), what=what))

    def placed(self, placement: PlaceExperts) -> None:
        """Experts were moved."""
        if placement.num_moved:
            self.note(f"group {placement.group}: {placement.num_moved} experts moved")

    def step_done(self, plan: StepPlan, answers: Sequence[RankAnswer]) -> None:
        """A group's step is done."""
        total, group = self._total, plan.group
        total.num_steps[group] += 1
        total.step_s[group] += max(answer.times.step_s for answer in answers)
        for sums, rank, answer in zip(total.ranks[group], plan.ranks, answers, strict=False):
            sums.num_tokens += int(rank.num_new.sum())
            sums.step_s += answer.times.step_s
            sums.wait_s += answer.times.wait_s
            sums.copy_s += answer.times.copy_s
            total.num_pushed_bytes += answer.times.num_pushed_bytes
            total.num_moved += len(rank.pushes)

    def said(self, commands: Iterable[Emit | Finish | Refuse]) -> None:
        """Clients heard something."""
        for command in commands:
            if isinstance(command, Emit):
                self._total.num_sampled += len(command.requests)
            elif isinstance(command, Finish):
                self._total.num_finished += 1

    def look(self, stats: EngineStats, fleet: Fleet) -> RackState:
        """The rack as it is now."""
        now = time.monotonic()
        while len(self._before) > 1 and self._before[1][0] <= now - WINDOW_S:
            self._before.popleft()
        then, before = self._before[0]
        seconds = max(now - then, 1e-3)
        state = RackState(
            model=self._model,
            time_s=time.time(),
            uptime_s=now - self._started,
            num_running=sum(group.num_running for group in stats.groups),
            num_waiting=sum(group.num_waiting for group in stats.groups),
            num_finished=self._total.num_finished,
            tokens_per_s=(self._total.num_sampled - before.num_sampled) / seconds,
            groups=[
                self._group(group, view, before, seconds)
                for group, view in zip(fleet.groups, stats.groups, strict=True)
            ],
            experts=_experts(stats),
            transfers=TransfersView(
                num_in_flight=sum(
                    len(rank.pushes)
                    for group in fleet.groups
                    for step in group.in_flight
                    for rank in step.plan.ranks
                ),
                num_moved=self._total.num_moved,
                num_failed=0,
                num_bytes=self._total.num_pushed_bytes,
                bytes_per_s=(self._total.num_pushed_bytes - before.num_pushed_bytes) / seconds,
            ),
            events=list(self._events),
        )
        self._before.append((now, _copy(self._total)))
        return state

    def _group(self, group: Group, stats: GroupStats, before: _Total, seconds: float) -> GroupView:
        number, role = group.number, stats.role.value
        if self._roles.setdefault(number, role) != role:
            self.note(f"group {number} is {role} now, it was {self._roles[number]}")
            self._roles[number] = role
        steps = self._total.num_steps[number] - before.num_steps[number]
        step_s = self._total.step_s[number] - before.step_s[number]
        return GroupView(
            group=number,
            role=role,
            tp=group.spec.tp,
            ranks=[self._rank(group, rank, stats, before, seconds) for rank in range(group.spec.num_ranks)],
            num_steps=self._total.num_steps[number],
            step_s=step_s / steps if steps else 0.0,
            imbalance=1.0 if stats.experts is None else stats.experts.imbalance,
        )

    def _rank(self, group: Group, rank: int, stats: GroupStats, before: _Total, seconds: float) -> RankView:
        seat = rank // group.spec.tp
        mine, link = stats.ranks[seat], group.links.get(RankId(rank))
        now, then = self._total.ranks[group.number][seat], before.ranks[group.number][seat]
        step_s = max(now.step_s - then.step_s, 1e-9)
        wait, copy = (now.wait_s - then.wait_s) / step_s, (now.copy_s - then.copy_s) / step_s
        return RankView(
            rank=rank,
            host="" if link is None else link.hello.host,
            pid=0 if link is None else link.hello.pid,
            status=STATUS[group.state],
            num_running=mine.num_running,
            num_waiting=mine.num_waiting,
            num_blocks=mine.num_blocks,
            num_used_blocks=mine.num_owned_blocks,
            tokens_per_s=(now.num_tokens - then.num_tokens) / seconds,
            num_restarts=max(0, group.incarnation - 1),
            compute_share=max(0.0, 1 - wait - copy) if now.step_s > then.step_s else 0.0,
            wait_share=wait,
            copy_share=copy,
        )


def _experts(stats: EngineStats) -> ExpertsView:
    known = [group.experts for group in stats.groups if group.experts is not None]
    loads: list[list[float]] = []
    for experts in known:
        loads = (
            experts.loads
            if not loads
            else [
                [a + b for a, b in zip(one, other, strict=True)]
                for one, other in zip(loads, experts.loads, strict=True)
            ]
        )
    return ExpertsView(
        loads=loads,
        num_rebalances=sum(experts.num_rebalances for experts in known),
        num_moved_experts=sum(experts.num_moved for experts in known),
    )


def _copy(total: _Total) -> _Total:
    return _Total(
        num_sampled=total.num_sampled,
        num_finished=total.num_finished,
        num_pushed_bytes=total.num_pushed_bytes,
        num_moved=total.num_moved,
        num_steps=list(total.num_steps),
        step_s=list(total.step_s),
        ranks=[[_Sums(r.num_tokens, r.step_s, r.wait_s, r.copy_s) for r in group] for group in total.ranks],
    )
