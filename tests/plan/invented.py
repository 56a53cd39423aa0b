"""A deployment that no planner has found."""

from rackscale.plan.types import Band, PlannedDeployment, PlanPoint, PoolPlan
from rackscale.specs import Role


def deployment(system="gb200-nvl72", reached=1000.0):
    def band(value):
        return Band(value=value, low=0.8 * value, high=1.2 * value)

    pool = PoolPlan(role=Role.MIXED, groups=1, ranks=8, tp=1, ep=8, batch_per_rank=16.0, batch_tokens=8192)
    return PlannedDeployment(
        model="kimi-k2-thinking",
        system=system,
        isl=8192,
        osl=1024,
        weights="nvfp4",
        pools=(pool,),
        point=PlanPoint(
            tokens_per_s_per_chip=band(reached),
            output_tokens_per_s_per_chip=reached / 9,
            tpot_s=band(0.025),
            ttft_s=band(1.0),
            ttft_p99_s=2.0,
            tpot_p99_s=0.03,
            tokens_per_s_per_mw=600 * reached,
            usd_per_mtok=0.1,
            chips=8,
            concurrency=128.0,
        ),
        binding="HBM for KV",
        operators={},
        memory={},
    )
