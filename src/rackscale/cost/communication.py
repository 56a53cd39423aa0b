"""What ranks of a group tell each other in a layer, as it runs inside an engine."""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from rackscale.cost.estimate import Estimate
from rackscale.cost.parameters import Parameters

if TYPE_CHECKING:
    from rackscale.cost.step import Work

Array = NDArray[np.float64]
ACTIVATION_BYTES = 2.0


def all_reduce(work: "Work", tokens: Array, ranks: Array, parameters: Parameters) -> Estimate:
    """The sum of every rank's activations [tokens, hidden], in BF16, at every rank: a reduce-scatter and an
    all-gather, each of (n - 1) / n of the bytes. Nothing where one rank is alone."""
    generation = work.chips.generation
    moved = 2 * tokens * work.shape.hidden * ACTIVATION_BYTES * (ranks - 1) / ranks
    several = ranks > 1
    seconds = parameters.by("reduce_latency", generation) + moved / (
        _slowest_link(work, ranks, parameters) * parameters.by("reduce_bandwidth", generation)
    )
    return Estimate(seconds=np.where(several, seconds, 0.0), bytes_link=np.where(several, moved, 0.0))


def exchange(work: "Work", own_tokens: Array, prefill: bool, parameters: Parameters) -> Estimate:  # noqa: FBT001 (as in Batch)
    """What the experts of a layer need told and tell.

    With one attention all ranks have all tokens, and an all-reduce adds up what their experts made. With
    several, tokens are gathered and their sums scattered, or each is sent to its experts' ranks and back,
    whichever takes less time.
    """
    layouts, chips = work.layouts, work.chips
    ranks, several = layouts.ranks, layouts.attentions > 1
    reduced = all_reduce(work, own_tokens, ranks, parameters)
    gathered = all_reduce(work, own_tokens * layouts.attentions, ranks, parameters)
    sent = _all_to_all(work, own_tokens, prefill, parameters)
    spread = layouts.ep > 1
    extra = np.where(spread & (ranks > 1), parameters.by("expert_parallel_overhead", work.recipe), 0.0)
    is_sent = spread & several & ((ranks > chips.domain) | (sent.seconds < gathered.seconds))
    seconds = extra + np.where(several, np.where(is_sent, sent.seconds, gathered.seconds), reduced.seconds)
    moved = np.where(several, np.where(is_sent, sent.bytes_link, gathered.bytes_link), reduced.bytes_link)
    return Estimate(seconds=seconds, bytes_link=moved)


def _all_to_all(work: "Work", tokens: Array, prefill: bool, parameters: Parameters) -> Estimate:  # noqa: FBT001 (as in Batch)
    """Dispatch in one byte, combine in two. A token crosses the network once for each domain that has experts
    of its."""
    shape, layouts, chips = work.shape, work.layouts, work.chips
    ranks = layouts.ranks
    copies = _others(ranks, shape.top_k)
    moved = tokens * shape.hidden * (1 + ACTIVATION_BYTES) * copies
    share = parameters["prefill_exchange_bandwidth" if prefill else "exchange_bandwidth"]
    inside = parameters["exchange_latency"] + moved / (chips.fabric_bytes_per_s * share)
    far = tokens * shape.hidden * (1 + ACTIVATION_BYTES) * _others(ranks / chips.domain, shape.top_k)
    network = parameters["network_latency"] + far / (
        chips.network_bytes_per_s * parameters["network_bandwidth"]
    )
    seconds = np.where(ranks > chips.domain, parameters["exchange_latency"] + network, inside)
    return Estimate(seconds=seconds, bytes_link=moved)


def _others(places: Array, top_k: int) -> Array:
    """Places other than its own that a token's experts lie in, in the mean; each gets it once."""
    several = np.maximum(places, 1.0)
    return (several - 1) * (1 - (1 - 1 / several) ** top_k)


def _slowest_link(work: "Work", ranks: Array, parameters: Parameters) -> Array:
    chips = work.chips
    return np.where(
        ranks > chips.domain,
        chips.network_bytes_per_s * parameters["network_bandwidth"],
        chips.fabric_bytes_per_s,
    )
