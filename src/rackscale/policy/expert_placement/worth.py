"""What redundant experts and a change of the placement are worth."""

import numpy.typing as npt

from rackscale.core import CapacityError
from rackscale.policy.expert_placement.place import place_experts
from rackscale.policy.expert_placement.placement import measured

WORTH_A_SLOT = 0.01  # of max/mean: a step that gets no faster than this is not worth a layer's memory


def choose_redundant_experts(
    loads: npt.ArrayLike,
    ranks: int,
    expert_bytes: int,
    memory_bytes: int,
    min_gain: float = WORTH_A_SLOT,
) -> int:
    """How many slots of a layer, in all, should hold a copy more; with the experts they divide by the ranks.

    loads: [layers, experts], as place_experts takes them.
    expert_bytes: one expert of one layer. memory_bytes: what a rank has for the experts of all layers, those
      that are not redundant included.
    min_gain: a further slot a rank, in every layer, must lower max/mean by so much, meant over the layers;
      at the first that does not the search ends.
    Raises CapacityError if not even one copy of each expert fits.
    """
    load_LE = measured(loads)
    num_layers, num_experts = (int(size) for size in load_LE.shape)
    affordable = memory_bytes // (expert_bytes * num_layers)
    slots_per_rank = -(-num_experts // ranks)
    if affordable < slots_per_rank:
        need = slots_per_rank * num_layers * expert_bytes
        raise CapacityError(f"{need} bytes of experts a rank, {memory_bytes} free", hint="take more ranks")
    imbalance = _mean_imbalance(load_LE, ranks, slots_per_rank)
    while slots_per_rank < min(affordable, num_experts):
        proposed = _mean_imbalance(load_LE, ranks, slots_per_rank + 1)
        if imbalance - proposed < min_gain:
            break
        imbalance, slots_per_rank = proposed, slots_per_rank + 1
    return slots_per_rank * ranks - num_experts


def _mean_imbalance(loads: npt.ArrayLike, ranks: int, slots_per_rank: int) -> float:
    return float(place_experts(loads, ranks * slots_per_rank, ranks).imbalance.mean())


def rebalance_pays(
    current: float,
    proposed: float,
    num_moves: int,
    seconds_per_step: float,
    balanced_share: float,
    seconds_per_move: float,
    horizon_steps: int,
) -> bool:
    """Whether the steps to come gain more time than the moves take.

    The experts' part of a step is in proportion to max/mean, the rest of it does not depend on the placement:

        gain = horizon_steps * seconds_per_step * balanced_share * (current - proposed)
        cost = num_moves * seconds_per_move

    current, proposed: max/mean now, and after the moves; the mean over the layers.
    seconds_per_step: a step as it is now.
    balanced_share: the part of it, 0 to 1, that the experts would take if the loads were even.
    seconds_per_move: how long one move holds the steps up.
    horizon_steps: how long the loads are expected to stay about as they are.
    """
    gain_s = horizon_steps * seconds_per_step * balanced_share * (current - proposed)
    return gain_s > num_moves * seconds_per_move
