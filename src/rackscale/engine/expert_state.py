"""Where the experts of one group are, what they have to do, and when it pays to move them.

Layers do not depend on each other, and finding a placement takes milliseconds. So one layer is looked at at a
time, and only if its balance got worse than what was reached when it was looked at last.
"""

from collections.abc import Sequence

import numpy as np

from rackscale.core import GroupId, IntColumn, PlaceExperts, Seconds
from rackscale.engine.stats import ExpertStats
from rackscale.policy import (
    ExpertLoads,
    even_placement,
    moves,
    place_experts,
    rebalance_pays,
)
from rackscale.specs import DeploymentSpec, GroupSpec

HALF_LIFE_STEPS = 200  # loads drift over topics, within minutes
MIN_GAIN = 0.02  # of max/mean: less is within what loads differ from one look to the next
EXPERT_SHARE = 1.0  # of a step, that its busiest rank's tokens decide: all of it at most
HORIZON_STEPS = 2000  # for how long a placement is expected to serve
SECONDS_PER_MOVE = 0.0  # ranks of a host have all experts mapped: a move copies nothing


class ExpertState:
    """The placement in force, and faded loads."""

    def __init__(self, group: GroupId, spec: GroupSpec, deployment: DeploymentSpec) -> None:
        self._group, self._num_ranks = group, spec.num_ranks
        slots = (deployment.num_experts + spec.redundant_experts) // spec.num_ranks
        self.placement = even_placement(
            deployment.num_moe_layers, deployment.num_experts, spec.num_ranks, slots
        )
        self.loads = ExpertLoads(deployment.num_moe_layers, deployment.num_experts, HALF_LIFE_STEPS)
        self.num_rebalances = 0
        self.num_moved = 0
        self.every = deployment.rebalance_every
        self._reached = np.ones(deployment.num_moe_layers)  # max/mean that the last look could not better
        self._steps_to_look = self.every
        self._next_layer = 0

    @classmethod
    def of(cls, group: GroupId, spec: GroupSpec, deployment: DeploymentSpec) -> "ExpertState | None":
        """None where one rank has all experts, or the model has none."""
        if spec.num_ranks == 1 or not deployment.num_experts or not deployment.num_moe_layers:
            return None
        return cls(group, spec, deployment)

    def after_step(self, loads: Sequence[IntColumn], step_s: Seconds | float) -> PlaceExperts | None:
        """A step's loads by rank, flattened, or empty where a rank reports none. Gives a new placement where
        it pays."""
        reported = [load for load in loads if len(load)]
        if not reported:
            return None
        self.loads.add(np.sum(reported, axis=0, dtype=np.int32))
        if not self.every or self.loads.num_steps < self._steps_to_look:
            return None
        layer = self._next_layer
        self._next_layer = (layer + 1) % self.placement.num_layers
        self._steps_to_look = self.loads.num_steps + max(1, self.every // self.placement.num_layers)
        return self._rebalanced(layer, float(step_s))

    def _rebalanced(self, layer: int, step_s: float) -> PlaceExperts | None:
        measured, current = self.loads.layer(layer), self.placement.layer(layer)
        now = float(current.imbalance_of(measured)[0])
        if now - self._reached[layer] < MIN_GAIN:
            return None
        slots = current.slots_per_rank * self._num_ranks
        proposed = place_experts(measured, slots=slots, ranks=self._num_ranks, current=current)
        then = self._reached[layer] = float(proposed.imbalance[0])
        num_moves = len(moves(current, proposed))
        pays = now - then >= MIN_GAIN and rebalance_pays(
            current=now,
            proposed=then,
            num_moves=num_moves,
            seconds_per_step=step_s,
            balanced_share=EXPERT_SHARE,
            seconds_per_move=SECONDS_PER_MOVE,
            horizon_steps=HORIZON_STEPS,
        )
        if not pays:
            return None
        self.placement = self.placement.with_layer(layer, proposed)
        self.num_rebalances += 1
        self.num_moved += num_moves
        return self.command(num_moves)

    def command(self, num_moved: int = 0) -> PlaceExperts:
        """The placement in force, as ranks are told it."""
        ranks_LEC, counts_LE = self.placement.ranks_of()
        return PlaceExperts(
            group=self._group,
            num_experts=self.placement.num_experts,
            most=ranks_LEC.shape[-1],
            ranks=np.ascontiguousarray(ranks_LEC, dtype=np.int32).ravel(),
            counts=np.ascontiguousarray(counts_LE, dtype=np.int32).ravel(),
            num_moved=num_moved,
        )

    def stats(self) -> ExpertStats:
        """Loads, and what they make of the placement."""
        loads = self.loads.loads
        return ExpertStats(
            loads=loads.tolist(),
            imbalance=float(self.placement.imbalance_of(loads).mean()),
            num_rebalances=self.num_rebalances,
            num_moved=self.num_moved,
        )
