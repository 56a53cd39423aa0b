"""From measured loads to replicas and slots: which rank holds which experts, and when to change that.

A mixture's experts are not asked for equally, and a step waits for its heaviest rank. So the experts that
are asked for most get several copies, called replicas, and the copies are laid into the slots of the ranks
so that every rank has about the same load. Every rank has the same number of slots in every layer, and the
layers do not depend on each other.

An expert's load is taken to split evenly over its copies; the figure that counts is max/mean, the load of
the heaviest rank over the mean rank's. 1 is even, and 1.2 means that the experts' part of a step takes a
fifth longer than it had to.
"""

from rackscale.policy.expert_placement.even import even_placement
from rackscale.policy.expert_placement.loads import ExpertLoads
from rackscale.policy.expert_placement.moves import moves
from rackscale.policy.expert_placement.place import place_experts
from rackscale.policy.expert_placement.placement import Placement
from rackscale.policy.expert_placement.worth import choose_redundant_experts, rebalance_pays

__all__ = [
    "ExpertLoads",
    "Placement",
    "choose_redundant_experts",
    "even_placement",
    "moves",
    "place_experts",
    "rebalance_pays",
]
