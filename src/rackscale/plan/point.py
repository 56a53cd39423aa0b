"""A planned deployment as the *point* that every verb's JSON speaks of."""

from typing import Any

from rackscale.plan.types import Band, PlannedDeployment, PoolPlan
from rackscale.specs import Role

MS_PER_S = 1000.0


def point_of(planned: PlannedDeployment) -> dict[str, Any]:
    """Ready for JSON. A median request stands for the mean where both decode alike; the mean of waits for a
    first token is not known. A mixed pool is under "prefill" and under "decode"."""
    point = planned.point
    tpot_ms = point.tpot_s.value * MS_PER_S
    return {
        "tokens_per_s_per_chip": point.tokens_per_s_per_chip.value,
        "output_tokens_per_s_per_chip": point.output_tokens_per_s_per_chip,
        "tokens_per_s_per_user": 1 / point.tpot_s.value,
        "ttft_s": {"mean": None, "p50": point.ttft_s.value, "p99": point.ttft_p99_s},
        "tpot_ms": {"mean": tpot_ms, "p50": tpot_ms, "p99": point.tpot_p99_s * MS_PER_S},
        "tokens_per_s_per_mw": point.tokens_per_s_per_mw,
        "usd_per_mtok": point.usd_per_mtok,
        "interval90": {
            "tokens_per_s_per_chip": _ends(point.tokens_per_s_per_chip),
            "tpot_ms": _ends(point.tpot_s, MS_PER_S),
            "ttft_s": _ends(point.ttft_s),
        },
        "chips": point.chips,
        "concurrency": point.concurrency,
        "role": "mixed" if planned.pools[0].role is Role.MIXED else "disaggregated",
        "weights": planned.weights,
        "binding": planned.binding,
        "prefill": {
            **_sizes(planned.pool(Role.PREFILL)),
            "batch_tokens": planned.pool(Role.PREFILL).batch_tokens,
        },
        "decode": {
            **_sizes(planned.pool(Role.DECODE)),
            "batch_per_rank": planned.pool(Role.DECODE).batch_per_rank,
        },
    }


def _ends(band: Band, factor: float = 1.0) -> list[float]:
    return [band.low * factor, band.high * factor]


def _sizes(pool: PoolPlan) -> dict[str, int]:
    return {
        "groups": pool.groups,
        "ranks": pool.ranks,
        "tp": pool.tp,
        "ep": pool.ep,
        "redundant_experts": pool.redundant_experts,
        "micro_batches": pool.micro_batches,
    }
