"""One forward pass of a group: its operators, each with what it costs."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from rackscale.cost import expert_load
from rackscale.cost.communication import all_reduce, exchange
from rackscale.cost.estimate import Estimate
from rackscale.cost.formats import tensor_rate
from rackscale.cost.parameters import Parameters
from rackscale.cost.work import Batch, Work

Array = NDArray[np.float64]
WEIGHTS_READ = 2  # multiplications and additions of a weight
EXCHANGE = "expert exchange"
COMPUTING = (
    "attention projections",
    "attention",
    "routed experts",
    "shared experts",
)  # what hides an exchange


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Step:
    """Operators by name, each with all its layers, of the slowest rank."""

    operators: Mapping[str, Estimate]

    @property
    def total(self) -> Estimate:
        """All of them, one after the other."""
        whole = Estimate()
        for estimate in self.operators.values():
            whole = whole + estimate
        return whole


def step(work: Work, batch: Batch, parameters: Parameters) -> Step:
    """The operators of one pass, in the order in which they run. Arrays are [K, R]: parameters' rows by
    layouts.

    Two micro-batches each take half of the sequences, stream all weights again, and hide a share of their
    exchanges under each other's computing.
    """
    parts = work.layouts.micro_batches
    operators = _operators(work, replace(batch, sequences=batch.sequences / parts), parameters)
    whole = {name: parts * estimate for name, estimate in operators.items()}
    exchanged = whole[EXCHANGE].seconds
    computed = sum(whole[name].seconds for name in COMPUTING)
    hidden = np.where(parts > 1, parameters["overlap"] * np.minimum(exchanged, computed), 0.0)
    whole[EXCHANGE] = whole[EXCHANGE].lasting(exchanged - hidden)
    watts = work.chips.tdp_w
    return Step(operators={name: estimate.drawing(watts) for name, estimate in whole.items()})


def _operators(work: Work, batch: Batch, parameters: Parameters) -> dict[str, Estimate]:
    shape, layouts = work.shape, work.layouts
    tokens = batch.sequences * batch.queries
    own = np.maximum(batch.sequences / layouts.attentions, 1.0)
    own_tokens = own * batch.queries
    num_moe, num_dense = shape.num_moe_layers, shape.num_layers - shape.num_moe_layers
    reduced = all_reduce(work, own_tokens, layouts.tp, parameters)
    return {
        "attention projections": shape.num_layers * _projections(work, own_tokens, parameters),
        "attention": _attention(work, batch, own, parameters),
        "attention all-reduce": shape.num_layers * reduced,
        "routed experts": num_moe * routed_experts(work, tokens, parameters),
        "shared experts": num_moe * _mlp(work, shape.shared_weights, own_tokens, parameters),
        "dense feed-forward": num_dense * _mlp(work, shape.dense_weights, own_tokens, parameters),
        EXCHANGE: num_moe * exchange(work, own_tokens, parameters, prefill=batch.prefill),
        "dense all-reduce": num_dense * reduced,
        "kernel launches": shape.num_layers * Estimate(seconds=_launches(work, parameters)),
        "head": _head(work, own, parameters),
    }


def _gemm(work: Work, weights: Array, tokens: Array, kind: str, parameters: Parameters) -> Estimate:
    """A dense product: weights are streamed or multiplied, whichever takes longer. kind: "linear", "mlp"."""
    precision = work.precision
    size, math = getattr(precision, f"{kind}_bytes"), getattr(precision, f"{kind}_math")
    flops = WEIGHTS_READ * weights * tokens
    bytes_hbm = weights * size
    generation = work.chips.generation
    streaming = bytes_hbm / (work.chips.hbm_bytes_per_s * parameters.by("linear_bandwidth", generation))
    multiplying = flops / (tensor_rate(work.chips, math) * parameters.by("linear_rate", generation))
    return Estimate(seconds=np.maximum(streaming, multiplying), flops=flops, bytes_hbm=bytes_hbm)


def _projections(work: Work, own_tokens: Array, parameters: Parameters) -> Estimate:
    weights = work.shape.replicated_weights + work.shape.split_weights / work.layouts.tp
    return _gemm(work, weights, own_tokens, "linear", parameters)


def _mlp(work: Work, weights: float, own_tokens: Array, parameters: Parameters) -> Estimate:
    return _gemm(work, weights / work.layouts.tp, own_tokens, "mlp", parameters)


def _attention(work: Work, batch: Batch, own: Array, parameters: Parameters) -> Estimate:
    """Every layer's, each with its window. The cache is read once by all the heads that a rank has."""
    shape, chips, tp = work.shape, work.chips, work.layouts.tp
    whole = Estimate()
    for count, window in shape.windows:
        context = batch.context if window is None else np.minimum(batch.context, window)
        seen = context + batch.queries / 2 if batch.prefill else context
        if window is not None:
            seen = np.minimum(seen, window)
        per_pair = (shape.prefill_flops if batch.prefill else shape.decode_flops) / tp
        flops = per_pair * own * batch.queries * seen
        kv = own * (context + batch.queries) * shape.kv_elements / np.minimum(tp, shape.kv_split)
        bytes_hbm = kv * work.precision.kv_bytes
        reading = bytes_hbm / (chips.hbm_bytes_per_s * parameters.by("kv_bandwidth", chips.generation))
        computing = flops / (chips.tensor_flops[0] * parameters.by("attention_rate", chips.generation))
        seconds = np.maximum(reading, computing)
        whole = whole + count * Estimate(seconds=seconds, flops=flops, bytes_hbm=bytes_hbm)
    return whole


def routed_experts(work: Work, tokens: Array, parameters: Parameters) -> Estimate:
    """A grouped product over the experts of the slowest rank: those that are touched are streamed, each once
    for all its tokens."""
    shape, chips, layouts, precision = work.shape, work.chips, work.layouts, work.precision
    if not shape.num_moe_layers:
        return Estimate()
    skew = parameters["routing_skew"]
    size = (shape.experts, shape.top_k)
    slowest = expert_load.slowest(tokens, layouts.ep, size, skew, work.balance)
    touched = expert_load.touched(tokens, *size, skew) / layouts.ranks
    most = np.maximum(shape.experts, layouts.slots) / layouts.ranks
    streamed = np.minimum(touched * slowest, most) * shape.expert_weights
    bytes_hbm = streamed * precision.expert_bytes
    flops = WEIGHTS_READ * shape.expert_weights * shape.top_k * tokens / layouts.ranks * slowest
    groups = (chips.generation, precision.expert_kind)
    streaming = bytes_hbm / (chips.hbm_bytes_per_s * parameters.by("expert_bandwidth", *groups))
    multiplying = flops / (tensor_rate(chips, precision.expert_math) * parameters.by("expert_rate", *groups))
    return Estimate(seconds=np.maximum(streaming, multiplying), flops=flops, bytes_hbm=bytes_hbm)


def _launches(work: Work, parameters: Parameters) -> Array:
    """Of one layer: the kernels that are too short to be bound by anything else, norms, rotary, router and
    quantisation among them. Without CUDA graphs the host launches each."""
    if not work.graphs:
        return parameters["eager_launches"]
    return parameters.by("layer_overhead", work.chips.generation) * parameters.by(
        "layer_overhead_recipe", work.recipe, work.precision.expert_kind
    )


def _head(work: Work, own: Array, parameters: Parameters) -> Estimate:
    """In BF16, its vocabulary split over the ranks of a group; one token of each sequence."""
    chips = work.chips
    weights = work.shape.embedding_weights / work.layouts.ranks
    flops, bytes_hbm = WEIGHTS_READ * weights * own, 2.0 * weights
    streaming = bytes_hbm / (chips.hbm_bytes_per_s * parameters.by("linear_bandwidth", chips.generation))
    multiplying = flops / (chips.tensor_flops[0] * parameters.by("linear_rate", chips.generation))
    return Estimate(seconds=np.maximum(streaming, multiplying), flops=flops, bytes_hbm=bytes_hbm)
