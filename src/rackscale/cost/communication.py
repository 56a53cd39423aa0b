"""What ranks of a group tell each other in a layer, as it runs inside an engine."""

import numpy as np
from numpy.typing import NDArray

from rackscale.cost.estimate import Estimate
from rackscale.cost.exchange_table import exchange_table
from rackscale.cost.parameters import Parameters
from rackscale.cost.work import Work

Array = NDArray[np.float64]
ACTIVATION_BYTES = 2.0


def all_reduce(work: Work, tokens: Array, ranks: Array, parameters: Parameters) -> Estimate:
    """The sum of every rank's activations [tokens, hidden], in BF16, at every rank: a reduce-scatter and an
    all-gather, each of (n - 1) / n of the bytes. Nothing where one rank is alone."""
    generation = work.chips.generation
    moved = 2 * tokens * work.shape.hidden * ACTIVATION_BYTES * (ranks - 1) / ranks
    several = ranks > 1
    away = np.where(ranks > work.chips.domain, parameters["network_latency"], 0.0)
    seconds = (
        parameters.by("reduce_latency", generation)
        + away
        + moved / (_slowest_link(work, ranks, parameters) * parameters.by("reduce_bandwidth", generation))
    )
    return Estimate(seconds=np.where(several, seconds, 0.0), bytes_link=np.where(several, moved, 0.0))


def exchange(work: Work, own_tokens: Array, parameters: Parameters, *, prefill: bool) -> Estimate:
    """What the experts of a layer need told and tell.

    With one attention all ranks have all tokens, and an all-reduce adds up what their experts made. With
    several, tokens are gathered and their sums scattered, or each is sent to its experts' ranks and back,
    whichever takes less time.
    """
    layouts, chips = work.layouts, work.chips
    ranks, several = layouts.ranks, layouts.attentions > 1
    reduced = all_reduce(work, own_tokens, ranks, parameters)
    gathered = all_reduce(work, own_tokens * layouts.attentions, ranks, parameters)
    sent = _all_to_all(work, own_tokens, parameters, prefill=prefill)
    spread = layouts.ep > 1
    extra = np.where(spread & (ranks > 1), parameters.by("expert_parallel_overhead", work.recipe), 0.0)
    is_sent = spread & several & ((ranks > chips.domain) | (sent.seconds < gathered.seconds))
    seconds = extra + np.where(several, np.where(is_sent, sent.seconds, gathered.seconds), reduced.seconds)
    moved = np.where(several, np.where(is_sent, sent.bytes_link, gathered.bytes_link), reduced.bytes_link)
    return Estimate(seconds=seconds, bytes_link=moved)


def _all_to_all(work: Work, tokens: Array, parameters: Parameters, *, prefill: bool) -> Estimate:
    """The fastest kernel's time alone, and how much longer it takes beside an engine's other work."""
    table = exchange_table(work.shape, work.chips, work.layouts, work.precision)
    seconds, moved = table.at(tokens)
    name = "prefill_exchange_in_place" if prefill else "exchange_in_place"
    return Estimate(seconds=seconds * parameters.by(name, work.engine), bytes_link=moved)


def _slowest_link(work: Work, ranks: Array, parameters: Parameters) -> Array:
    chips = work.chips
    return np.where(
        ranks > chips.domain,
        chips.network_bytes_per_s * parameters["network_bandwidth"],
        chips.fabric_bytes_per_s,
    )
