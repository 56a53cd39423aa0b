"""A measurement as the *point* that every verb's JSON speaks of."""

from typing import Any

from rackscale.measure.distribution import Distribution
from rackscale.measure.measurement import Measurement
from rackscale.specs import DeploymentSpec, GroupSpec, Role

MS_PER_S = 1000.0


def point(
    measurement: Measurement,
    *,
    deployment: DeploymentSpec | None = None,
    decode_batch_per_rank: float | None = None,
) -> dict[str, Any]:
    """The point, ready for JSON; null is what a measurement cannot know (power, prices, intervals), and
    what is per chip where no deployment says how many ranks, and so chips, there are.
    """
    chips = None if deployment is None else sum(group.num_ranks for group in deployment.groups)
    tokens_per_s = _plus(measurement.input_tokens_per_s, measurement.output_tokens_per_s)
    mean_tpot_s = None if measurement.tpot_s is None else measurement.tpot_s.mean
    return {
        "tokens_per_s_per_chip": _ratio(tokens_per_s, chips),
        "output_tokens_per_s_per_chip": _ratio(measurement.output_tokens_per_s, chips),
        "tokens_per_s_per_user": _ratio(1.0, mean_tpot_s),
        "ttft_s": _summary(measurement.ttft_s, 1.0),
        "tpot_ms": _summary(measurement.tpot_s, MS_PER_S),
        "tokens_per_s_per_mw": None,
        "usd_per_mtok": None,
        "interval90": None,
        "chips": chips,
        "concurrency": measurement.concurrency,
        "prefill": _pool(deployment, Role.PREFILL, decode_batch_per_rank),
        "decode": _pool(deployment, Role.DECODE, decode_batch_per_rank),
    }


def _plus(first: float | None, second: float | None) -> float | None:
    return None if first is None or second is None else first + second


def _ratio(amount: float | None, per: float | None) -> float | None:
    return amount / per if amount is not None and per else None


def _summary(values: Distribution | None, factor: float) -> dict[str, float | None]:
    if values is None:
        return {"mean": None, "p50": None, "p99": None}
    return {"mean": values.mean * factor, "p50": values.p50 * factor, "p99": values.p99 * factor}


def _pool(
    deployment: DeploymentSpec | None, role: Role, decode_batch_per_rank: float | None
) -> dict[str, Any] | None:
    """The groups that do the role's work; a mixed one does both. Attention is data-parallel over ranks,
    so tensor parallelism (tp) is 1 and a group's ranks are the width of expert parallelism (ep)."""
    if deployment is None:
        return None
    groups = [group for group in deployment.groups if group.role in (role, Role.MIXED)]
    layout: dict[str, Any] = {
        "groups": len(groups),
        "ranks": sum(group.num_ranks for group in groups),
        "tp": 1,
        "ep": _common(groups, "num_ranks"),
    }
    if role is Role.PREFILL:
        return {**layout, "batch_tokens": _common(groups, "max_batched_tokens")}
    return {**layout, "batch_per_rank": decode_batch_per_rank, "redundant_experts": None}


def _common(groups: list[GroupSpec], size: str) -> int | None:
    """What all groups have of a size, or None."""
    values = {getattr(group, size) for group in groups}
    return values.pop() if len(values) == 1 else None
