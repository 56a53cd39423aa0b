"""Deployments in words."""

from rackscale.plan.report.figures import plain, plural, seconds
from rackscale.plan.types import PlannedDeployment, PoolPlan
from rackscale.specs import Role

STEPS = {Role.PREFILL: "Prefill step", Role.DECODE: "Decode step", Role.MIXED: "Mixed step"}


def pool_words(pool: PoolPlan) -> str:
    """2 prefill groups of 4 chips."""
    return size_words(pool, f"{pool.role} group")


def size_words(pool: PoolPlan, group: str = "group") -> str:
    """2 groups of 4 chips. group: what to call one."""
    return f"{plural(pool.groups, group)} of {plural(pool.ranks, 'chip')}"


def split_words(pool: PoolPlan) -> str:
    """EP64 TP1, how a group shares experts and attention."""
    redundant = f", {pool.redundant_experts} redundant" if pool.redundant_experts else ""
    return f"EP{pool.ep}\N{NO-BREAK SPACE}TP{pool.tp}{redundant}"


def layout_words(deployment: PlannedDeployment) -> str:
    """All pools with their splits, and the format of the experts."""
    pools = " + ".join(f"{pool_words(pool)} ({split_words(pool)})" for pool in deployment.pools)
    return f"{pools}, {deployment.weights.upper()}"


def batch_words(pool: PoolPlan) -> str:
    """What a rank's step works on."""
    said = []
    if pool.batch_per_rank:
        said.append(f"{plural(pool.batch_per_rank, 'sequence')} a rank")
    if pool.batch_tokens:
        said.append(f"{plain(pool.batch_tokens)} prompt tokens a step")
    if pool.micro_batches > 1:
        said.append(plural(pool.micro_batches, "micro-batch").replace("batchs", "batches"))
    return ", ".join(said)


def speed(deployment: PlannedDeployment) -> float:
    """Tokens per second that a user sees."""
    return 1 / deployment.point.tpot_s.value


def latency_words(deployment: PlannedDeployment) -> str:
    """Both latencies, with the slowest of a hundred."""
    point = deployment.point
    return (
        f"TPOT {seconds(point.tpot_s.value)} (p99 {seconds(point.tpot_p99_s)}), "
        f"TTFT {seconds(point.ttft_s.value)} (p99 {seconds(point.ttft_p99_s)})"
    )
