"""One group: ranks that step together, and the steps that they have been given."""

from collections import deque
from dataclasses import dataclass

from rackscale.core import (
    GroupId,
    IntColumn,
    PlaceExperts,
    PlanId,
    RankId,
    RankPlan,
    Seconds,
    SpecError,
    StepDone,
    StepPlan,
)
from rackscale.engine.expert_state import ExpertState
from rackscale.engine.rank_state import RankState
from rackscale.engine.reservation import Reservation
from rackscale.engine.stats import GroupStats
from rackscale.policy import PrefixJournal, StepCosts
from rackscale.specs import DeploymentSpec, GroupSpec, Role


@dataclass(frozen=True, kw_only=True, slots=True)
class Flight:
    """A step that has not answered. samples: for each rank the rows that sample and who has them. room: where
    it pushes KV to. num_prompt_tokens: that it computes."""

    plan: PlanId
    samples: tuple[tuple[IntColumn, IntColumn], ...]
    room: tuple[Reservation, ...]
    num_prompt_tokens: int
    planned: Seconds


class GroupState:
    """Ranks in lockstep. A group that lost a rank takes no step until it is back."""

    def __init__(
        self,
        group: GroupId,
        spec: GroupSpec,
        deployment: DeploymentSpec,
        journal: PrefixJournal | None = None,
    ) -> None:
        self.group, self.spec, self.role = group, spec, spec.role
        self.ranks = [
            RankState(group, RankId(number), spec, deployment, journal) for number in range(spec.num_seats)
        ]
        self.costs = StepCosts()
        self.experts = ExpertState.of(group, spec, deployment)
        self.in_flight: deque[Flight] = deque()
        self.lost: set[RankId] = set()
        self._landed = Seconds(0.0)
        self._max_in_flight = deployment.max_in_flight
        self._next_plan = 0

    @property
    def decodes(self) -> bool:
        """Whether it takes sequences that another group has prefilled."""
        return self.role is not Role.PREFILL

    @property
    def num_queued_tokens(self) -> int:
        """Of prompts that are not computed yet."""
        return sum(rank.num_queued_tokens for rank in self.ranks)

    def plan(self, now: Seconds) -> StepPlan | None:
        """The next step, if the group may take one and has something to do."""
        if self.lost or len(self.in_flight) >= self._max_in_flight:
            return None
        plans = tuple(rank.plan() for rank in self.ranks)
        if not any(len(plan.rows) for plan in plans):
            return None
        step = StepPlan(plan=PlanId(self._next_plan), group=self.group, ranks=plans)
        self._next_plan += 1
        for rank in self.ranks:
            rank.num_planned = self._next_plan
        samples = tuple(rank.samples_of(plan) for rank, plan in zip(self.ranks, plans, strict=True))
        pairs = list(zip(self.ranks, plans, strict=True))
        flight = Flight(
            plan=step.plan,
            samples=samples,
            room=tuple(room for rank, plan in pairs for room in rank.destinations_of(plan)),
            num_prompt_tokens=max(_num_prompt_tokens(plan) for plan in plans),
            planned=now,
        )
        self.in_flight.append(flight)
        return step

    def land(self, event: StepDone, now: Seconds) -> Flight:
        """The oldest step in flight has answered. Raises SpecError where the answer is not to it."""
        if not self.in_flight or self.in_flight[0].plan != event.plan:
            due = self.in_flight[0].plan if self.in_flight else "none"
            raise SpecError(
                f"group {self.group} answered step {event.plan}, and {due} is due",
                hint="a group answers its steps in the order in which it was given them",
            )
        flight = self.in_flight[0]
        sampled = [len(result.tokens) for result in event.ranks]
        due_samples = [len(rows) for rows, _ in flight.samples]
        if sampled != due_samples:
            raise SpecError(
                f"group {self.group} sampled {sampled} tokens by rank in step {event.plan},"
                f" and {due_samples} were asked for",
                hint="a rank answers one token for each entry with samples 1",
            )
        self.in_flight.popleft()
        for rank in self.ranks:
            rank.num_landed = flight.plan + 1
        for room in flight.room:
            room.landed()
        self.costs.add(flight.num_prompt_tokens, now - max(flight.planned, self._landed))
        self._landed = now
        return flight

    def rebalance(self, event: StepDone) -> PlaceExperts | None:
        """What the loads of a step that has landed make worth while."""
        if self.experts is None:
            return None
        return self.experts.after_step([result.expert_loads for result in event.ranks], self.costs.base_s)

    def lose(self, rank: RankId) -> None:
        """A rank died, and the steps in flight with it."""
        self.lost.add(self._known(rank))
        for flight in self.in_flight:
            for room in flight.room:
                room.landed()
        self.in_flight.clear()

    def join(self, rank: RankId) -> None:
        """A rank is back."""
        self.lost.discard(self._known(rank))

    def _known(self, rank: RankId) -> RankId:
        if not 0 <= rank < self.spec.num_ranks:
            raise SpecError(
                f"group {self.group} has no rank {rank}",
                hint=f"it has {self.spec.num_ranks}, counted from 0",
            )
        return rank

    def stats(self) -> GroupStats:
        """What it holds right now."""
        return GroupStats(
            role=self.role,
            ranks=tuple(rank.stats() for rank in self.ranks),
            num_in_flight=len(self.in_flight),
            experts=None if self.experts is None else self.experts.stats(),
        )

    def check(self) -> None:
        """Assert that the ranks' states hold, and that a group with a lost rank stands still."""
        for rank in self.ranks:
            rank.check()
        assert len(self.in_flight) <= self._max_in_flight, "a step too many is in flight"
        assert not (self.lost and self.in_flight), "a group that lost a rank steps"
        assert not (self.lost and any(rank.num_running for rank in self.ranks)), "a row on a lost group"


def _num_prompt_tokens(plan: RankPlan) -> int:
    """Decodes come first and add one token each; what is more than one is of a prompt."""
    return int(plan.num_new[plan.num_new > 1].sum()) if len(plan.num_new) else 0
