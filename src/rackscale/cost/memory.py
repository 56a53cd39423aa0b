"""What a rank's memory holds: weights, cache, and what is left."""

import numpy as np
from numpy.typing import NDArray

from rackscale.cost.work import Work

Array = NDArray[np.float64]

WORKSPACE_BYTES = 5e9  # activations, communication buffers, graphs: engines' recipes leave 3 to 8 GB


def weight_bytes(work: Work) -> Array:
    """Of one rank [R]: its slots of experts, its share of attention, of shared and dense parts, and of the
    embedding and the head, in BF16."""
    shape, layouts, precision = work.shape, work.layouts, work.precision
    slots = np.maximum(layouts.slots, shape.experts)
    routed = shape.num_moe_layers * slots / layouts.ranks * shape.expert_weights * precision.expert_bytes
    dense = shape.num_layers - shape.num_moe_layers
    mlp = (shape.num_moe_layers * shape.shared_weights + dense * shape.dense_weights) / layouts.tp
    attention = shape.num_layers * (shape.replicated_weights + shape.split_weights / layouts.tp)
    ends = 2 * shape.embedding_weights / layouts.ranks * 2.0
    return routed + mlp * precision.mlp_bytes + attention * precision.linear_bytes + ends


def sequences_that_fit(work: Work, length: Array, share: Array, of_rest: NDArray[np.bool_]) -> Array:
    """Sequences of so many tokens that have room in a group [R].

    share: of all memory that weights and cache may take together, as SGLang and vLLM count; where of_rest, of
    what weights and workspace leave, as TensorRT-LLM counts.
    """
    shape, layouts = work.shape, work.layouts
    weights, memory = weight_bytes(work), work.chips.hbm_bytes
    room = np.where(of_rest, (memory - weights - WORKSPACE_BYTES) * share, memory * share - weights)
    split = np.minimum(layouts.tp, shape.kv_split)
    per_token = shape.kv_bytes_per_token(1.0) * work.precision.kv_bytes / split
    return np.maximum(room, 0.0) / (per_token * length) * layouts.attentions
