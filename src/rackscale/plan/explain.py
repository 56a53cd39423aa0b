"""Why a deployment does what it does: each operator's time, what sets it, and which limit binds the whole.

What sets an operator's time is found by giving the chip twice of one thing: memory bandwidth, tensor cores or
links. That of which twice as much saves most is the bound. Where twice of all saves nothing it is latency.
"""

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rackscale.cost import Batch, Estimate, Parameters, Work, step
from rackscale.plan.types import OperatorTime

Array = NDArray[np.float64]

TWICE = 2.0
WORTH = 0.1  # of an operator's time, which twice of everything must save
BOUNDS = ("HBM", "tensor cores", "link")
ROWS = len(BOUNDS) + 2
ROOFLINE = "roofline: the longer of streaming and multiplying, at shares of the datasheet that a fit gave"
MESSAGES = "latency and bytes over a link's rate, at shares that a fit gave"
# Function that computes an operator, and where its formula is from.
FORMULAS = {
    "attention projections": ("rackscale.cost.step._projections", ROOFLINE),
    "attention": (
        "rackscale.cost.step._attention",
        ROOFLINE + "; MLA decodes in its compressed space (DeepSeek-V2, arXiv 2405.04434)",
    ),
    "attention all-reduce": ("rackscale.cost.communication.all_reduce", MESSAGES),
    "routed experts": (
        "rackscale.cost.step.routed_experts",
        ROOFLINE + "; touched experts and slowest rank by rackscale.cost.expert_load",
    ),
    "shared experts": ("rackscale.cost.step._mlp", ROOFLINE),
    "dense feed-forward": ("rackscale.cost.step._mlp", ROOFLINE),
    "expert exchange": ("rackscale.cost.communication.exchange", MESSAGES),
    "dense all-reduce": ("rackscale.cost.communication.all_reduce", MESSAGES),
    "kernel launches": ("rackscale.cost.step._launches", "a time for each layer that a fit gave"),
    "head": ("rackscale.cost.step._head", ROOFLINE),
    "host": ("rackscale.plan.closed_loop", "a time for each step and sequence that a fit gave"),
    "stalls by prompts": (
        "rackscale.plan.closed_loop",
        "prompts' steps that come between two of an answer, times a share that a fit gave",
    ),
}


def operator_times(
    work: Work, batch: Batch, parameters: Parameters, factor: Array
) -> list[tuple[OperatorTime, ...]]:
    """Of each layout [R]. factor [R]: of an engine's steps over the sum of their operators. parameters: one
    row."""
    count = len(factor)
    found = step(_twice(work, count), _repeated(batch, count), parameters).operators
    return [
        tuple(_operator(name, estimate, count, row, float(factor[row])) for name, estimate in found.items())
        for row in range(count)
    ]


def further(name: str, seconds: float) -> OperatorTime:
    """What is no kernel: the host's part, and what others make an answer wait for."""
    formula, source = FORMULAS[name]
    return OperatorTime(
        name=name,
        seconds=seconds,
        flops=0.0,
        bytes_hbm=0.0,
        bytes_link=0.0,
        bound="host" if name == "host" else "prompts",
        formula=formula,
        source=source,
    )


def _twice(work: Work, count: int) -> Work:
    """Each layout as it is, with twice of each of `BOUNDS`, and with twice of all."""

    def repeated(columns: Any) -> dict[str, NDArray[Any]]:
        names = [field.name for field in fields(columns) if field.name != "tensor_flops"]
        return {name: _column(getattr(columns, name), count) for name in names}

    def grown(column: Array, *numbers: int) -> NDArray[Any]:
        times = np.ones(ROWS)
        times[[*numbers, ROWS - 1]] = TWICE
        return _column(column, count) * np.tile(times, count)

    chips = work.chips
    return replace(
        work,
        chips=replace(
            chips,
            **repeated(chips)
            | {
                "hbm_bytes_per_s": grown(chips.hbm_bytes_per_s, 1),
                "tensor_flops": np.stack([grown(rates, 2) for rates in chips.tensor_flops]),
                "fabric_bytes_per_s": grown(chips.fabric_bytes_per_s, 3),
                "network_bytes_per_s": grown(chips.network_bytes_per_s, 3),
            },
        ),
        layouts=replace(work.layouts, **repeated(work.layouts)),
        precision=replace(work.precision, **repeated(work.precision)),
        balance=_column(work.balance, count),
        recipe=_column(work.recipe, count),
        engine=_column(work.engine, count),
    )


def _repeated(batch: Batch, count: int) -> Batch:
    return replace(
        batch,
        sequences=_column(batch.sequences, count),
        queries=_column(batch.queries, count),
        context=_column(batch.context, count),
    )


def _column(values: NDArray[Any], count: int) -> NDArray[Any]:
    """A row's value for each of its relaxations."""
    return np.repeat(np.broadcast_to(np.ravel(values), count), ROWS)


def _operator(name: str, estimate: Estimate, count: int, row: int, factor: float) -> OperatorTime:
    def own(values: Array | float) -> Array:
        whole = np.broadcast_to(values, (1, count * ROWS))
        return np.asarray(whole[0].reshape(count, ROWS)[row])

    seconds = own(estimate.seconds)
    saved = seconds[0] - seconds[1:]
    most = int(np.argmax(saved[:-1]))
    bound = BOUNDS[most] if saved[-1] > WORTH * seconds[0] else "latency"
    formula, source = FORMULAS[name]
    return OperatorTime(
        name=name,
        seconds=float(seconds[0]) * factor,
        flops=float(own(estimate.flops)[0]),
        bytes_hbm=float(own(estimate.bytes_hbm)[0]),
        bytes_link=float(own(estimate.bytes_link)[0]),
        bound=bound,
        formula=formula,
        source=source,
    )


def limits(operators: tuple[OperatorTime, ...], slowest: float, *, prefill: bool) -> Mapping[str, float]:
    """Seconds of a step by the limit that sets them. slowest: the fullest rank's experts over the mean's."""
    seconds: dict[str, float] = {}
    for operator in operators:
        parts = {_words(operator, prefill=prefill): operator.seconds}
        if operator.name == "routed experts" and operator.bound != "latency":
            waited = operator.seconds * (1 - 1 / slowest)
            parts = {_words(operator, prefill=prefill): operator.seconds - waited, "slowest expert": waited}
        for words, own in parts.items():
            seconds[words] = seconds.get(words, 0.0) + own
    return seconds


def _words(operator: OperatorTime, *, prefill: bool) -> str:
    where = "prefill" if prefill else "decode"
    match operator.bound:
        case "HBM":
            return "reading the KV cache" if operator.name == "attention" else f"weight streaming in {where}"
        case "tensor cores":
            return f"tensor cores in {where}"
        case "link":
            return f"link bandwidth in {where}"
    if operator.name == "expert exchange":
        return "all-to-all latency"
    return "all-reduce latency" if "all-reduce" in operator.name else "launches and host"
