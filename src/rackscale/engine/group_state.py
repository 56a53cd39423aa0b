"""One group: ranks that step together, and the steps that they have been given."""

from collections import deque
from dataclasses import dataclass

from rackscale.core import GroupId, IntColumn, PlanId, RankId, SpecError, StepDone, StepPlan
from rackscale.engine.rank_state import RankState
from rackscale.engine.stats import GroupStats
from rackscale.specs import DeploymentSpec, GroupSpec


@dataclass(frozen=True, kw_only=True, slots=True)
class Flight:
    """A step that has not answered. samples: for each rank the rows that sample and who has them."""

    plan: PlanId
    samples: tuple[tuple[IntColumn, IntColumn], ...]


class GroupState:
    """Ranks in lockstep. A group that lost a rank takes no step until it is back."""

    def __init__(self, group: GroupId, spec: GroupSpec, deployment: DeploymentSpec) -> None:
        self.group, self.spec = group, spec
        self.ranks = [
            RankState(spec, deployment.max_model_len, deployment.block_size) for _ in range(spec.num_ranks)
        ]
        self.in_flight: deque[Flight] = deque()
        self.lost: set[RankId] = set()
        self._max_in_flight = deployment.max_in_flight
        self._next_plan = 0

    def plan(self) -> StepPlan | None:
        """The next step, if the group may take one and has something to do."""
        if self.lost or len(self.in_flight) >= self._max_in_flight:
            return None
        plans = tuple(rank.plan() for rank in self.ranks)
        if not any(len(plan.rows) for plan in plans):
            return None
        step = StepPlan(plan=PlanId(self._next_plan), group=self.group, ranks=plans)
        self._next_plan += 1
        samples = tuple(rank.samples_of(plan) for rank, plan in zip(self.ranks, plans, strict=True))
        self.in_flight.append(Flight(plan=step.plan, samples=samples))
        return step

    def land(self, event: StepDone) -> Flight:
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
        return flight

    def lose(self, rank: RankId) -> None:
        """A rank died, and the steps in flight with it."""
        self.lost.add(self._known(rank))
        self.in_flight.clear()

    def join(self, rank: RankId) -> None:
        """A rank is back."""
        self.lost.discard(self._known(rank))

    def _known(self, rank: RankId) -> RankId:
        if not 0 <= rank < len(self.ranks):
            raise SpecError(
                f"group {self.group} has no rank {rank}", hint=f"it has {len(self.ranks)}, counted from 0"
            )
        return rank

    def stats(self) -> GroupStats:
        """Sums over the ranks."""
        return GroupStats(
            num_waiting=sum(rank.num_waiting for rank in self.ranks),
            num_running=sum(rank.num_running for rank in self.ranks),
            num_blocks=sum(rank.blocks.num_blocks for rank in self.ranks),
            num_owned_blocks=sum(rank.blocks.num_owned for rank in self.ranks),
            num_in_flight=len(self.in_flight),
            num_preempted=sum(rank.num_preempted for rank in self.ranks),
            num_queried_tokens=sum(rank.num_queried_tokens for rank in self.ranks),
            num_hit_tokens=sum(rank.num_hit_tokens for rank in self.ranks),
        )

    def check(self) -> None:
        """Assert that the ranks' states hold, and that a group with a lost rank stands still."""
        for rank in self.ranks:
            rank.check()
        assert len(self.in_flight) <= self._max_in_flight, "a step too many is in flight"
        assert not (self.lost and self.in_flight), "a group that lost a rank steps"
        assert not (self.lost and any(rank.num_running for rank in self.ranks)), "a row on a lost group"
