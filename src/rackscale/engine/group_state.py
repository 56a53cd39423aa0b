"""One group: ranks that step together, and the steps that they have been given."""

from collections import deque
from dataclasses import dataclass

from rackscale.core import GroupId, IntColumn, PlanId, RankId, StepPlan
from rackscale.engine.rank_state import RankState
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
