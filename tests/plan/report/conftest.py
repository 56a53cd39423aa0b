"""A plan and a comparison that are invented: no planner said these numbers."""

import math
from dataclasses import dataclass, replace

import pytest

from rackscale.plan.sweep.regimes import Regime
from rackscale.plan.sweep.types import Answer, Fit, Row, Sweep
from rackscale.plan.types import (
    Alternative,
    Band,
    Comparison,
    CurvePoint,
    MemoryShare,
    Objective,
    OperatorTime,
    Plan,
    PlannedDeployment,
    PlanPoint,
    PoolPlan,
    Ratio,
    WaterfallStep,
)
from rackscale.specs import Role

MODEL = "sample-moe-1t"


@dataclass(frozen=True)
class SampleChip:
    hbm_bytes: float = 199e9


@dataclass(frozen=True)
class SampleSystem:
    name: str = "sample-nvl72"
    title: str = "Sample NVL72"
    domain_chips: int = 72
    announced: bool = False
    chip: SampleChip = SampleChip()


def band(value, spread=0.12):
    return Band(value=value, low=value * (1 - spread), high=value * (1 + 1.1 * spread))


def operator(name, seconds, bound, module="cost.step", source="roofline; rates fitted to InferenceX"):
    return OperatorTime(
        name=name,
        seconds=seconds,
        flops=seconds * 4.1e14 if bound == "tensor cores" else seconds * 3e13,
        bytes_hbm=seconds * 5.2e12 if bound == "HBM" else seconds * 4e11,
        bytes_link=seconds * 6.1e11 if bound == "link" else 0.0,
        bound=bound,
        formula=f"rackscale.{module}.{name.replace(' ', '_').replace('-', '_')}",
        source=source,
    )


def steps(scale=1.0):
    decode = [
        operator("attention projections", 3.1e-3 * scale, "HBM"),
        operator("attention", 6.42e-3 * scale, "HBM"),
        operator("attention all-reduce", 0.0, "link", "cost.communication"),
        operator("routed experts", 5.87e-3 * scale, "HBM"),
        operator("shared experts", 0.61e-3 * scale, "HBM"),
        operator("dense feed-forward", 0.092e-3 * scale, "HBM"),
        operator("expert exchange", 4.06e-3 * scale, "link", "cost.communication", "DeepEP, collectives.csv"),
        operator("kernel launches", 1.94e-3 * scale, "latency"),
        operator("head", 0.33e-3 * scale, "HBM"),
    ]
    prefill = [
        operator("attention projections", 0.048 * scale, "tensor cores"),
        operator("attention", 0.0371 * scale, "tensor cores"),
        operator("routed experts", 0.0823 * scale, "tensor cores"),
        operator("shared experts", 0.0097 * scale, "tensor cores"),
        operator("expert exchange", 0.0214 * scale, "link", "cost.communication"),
        operator("kernel launches", 0.00194 * scale, "latency"),
        operator("head", 0.00041 * scale, "HBM"),
    ]
    return {Role.DECODE: tuple(decode), Role.PREFILL: tuple(prefill)}


def memory(experts, attention, kv, total):
    shares = {"routed experts": experts, "attention": attention, "embedding and head": 0.5e9, "KV cache": kv}
    shares |= {"buffers": 5e9}
    shares["free"] = total - sum(shares.values())
    return tuple(MemoryShare(name=name, bytes=size) for name, size in shares.items())


def deployment(speed, throughput, *, prefill=(2, 4), decode=(1, 64), batch=96.0, redundant=0, **changes):
    chips = prefill[0] * prefill[1] + decode[0] * decode[1]
    point = PlanPoint(
        tokens_per_s_per_chip=band(throughput),
        output_tokens_per_s_per_chip=throughput / 9,
        tpot_s=band(1 / speed, 0.09),
        ttft_s=band(0.91 + 9 / speed, 0.22),
        ttft_p99_s=2.4 + 20 / speed,
        tpot_p99_s=1.13 / speed,
        tokens_per_s_per_mw=throughput / 1.87e-3,
        usd_per_mtok=1.86 / 3600 / throughput * 1e6,
        chips=chips,
        concurrency=batch * decode[0] * decode[1],
    )
    pools = (
        PoolPlan(
            role=Role.PREFILL, groups=prefill[0], ranks=prefill[1], tp=1, ep=prefill[1], batch_tokens=16384
        ),
        PoolPlan(
            role=Role.DECODE,
            groups=decode[0],
            ranks=decode[1],
            tp=1,
            ep=decode[1],
            redundant_experts=redundant,
            batch_per_rank=batch,
            micro_batches=2,
        ),
    )
    whole = PlannedDeployment(
        model=MODEL,
        system="sample-nvl72",
        isl=8192,
        osl=1024,
        weights="nvfp4",
        pools=pools,
        point=point,
        binding="HBM for KV",
        operators=steps(),
        memory={
            Role.PREFILL: memory(143e9, 12e9, 22e9, 189e9),
            Role.DECODE: memory(9.1e9, 12e9, 148e9, 189e9),
        },
    )
    return replace(whole, **changes)


def mixed(speed, throughput, chips, **changes):
    whole = deployment(speed, throughput, prefill=(0, 0), decode=(1, chips), batch=14.5)
    pool = PoolPlan(
        role=Role.MIXED, groups=1, ranks=chips, tp=chips, ep=1, batch_per_rank=14.5, batch_tokens=8192
    )
    shares = {Role.MIXED: memory(71.4e9, 11e9, 30e9, 134e9)}
    stalls = operator("stalls by prompts", 7.9e-3, "prompts", "plan.closed_loop")
    times = {Role.MIXED: (*steps(1.7)[Role.DECODE], stalls)}
    return replace(whole, pools=(pool,), memory=shares, operators=times, weights="int4", **changes)


def make_plan(**changes):
    best = deployment(36.9, 9241.0, redundant=32)
    speeds = [18.0 * 1.17**n for n in range(15)]
    bindings = ("tensor cores of prefill", "HBM for KV", "slowest expert", "all-to-all latency")
    pareto = [
        deployment(
            speed,
            9241.0 * (36.9 / speed) ** 0.45 * math.exp(-((speed / 95) ** 1.7) + (36.9 / 95) ** 1.7),
            prefill=(max(1, 7 - n // 2), 4),
            decode=(1, (64, 48, 32, 16)[n // 4]),
            batch=round(280 * 0.8**n),
            binding=bindings[n // 4],
        )
        for n, speed in enumerate(speeds)
        if not 33 < speed < 38
    ]
    others = [
        Alternative(
            deployment=deployment(37.1, 8120.0, decode=(2, 32)),
            why_not="Each rank holds twice the experts: 9 GB less for KV, a third fewer sequences.",
        ),
        Alternative(
            deployment=deployment(36.4, 6930.0, decode=(4, 16)),
            why_not="Experts take 36 GB of a rank; their weights are read for a quarter of the tokens.",
        ),
        Alternative(
            deployment=mixed(38.0, 5410.0, 72),
            why_not="Prompts stall decoding: at 36.3 tokens/s and user a rank may prefill 31 % of the time.",
        ),
    ]
    whole = Plan(
        model=MODEL,
        system="sample-nvl72",
        isl=8192,
        osl=1024,
        objective=Objective.CHIP,
        interactivity=36.3,
        ttft_s=2.0,
        best=best,
        pareto=tuple(sorted([*pareto, best], key=lambda one: one.point.tpot_s.value)),
        alternatives=tuple(others),
        searched=412_806,
        seconds=2.31,
    )
    return replace(whole, **changes)


def make_comparison(**changes):
    factors = {
        "FP4 weights and maths": 2.87,
        "Memory bandwidth": 1.52,
        "Memory size": 1.31,
        "Domain of 72": 1.94,
        "Disaggregation": 1.18,
        "Software": 1.06,
        "Power": 1 / 1.37,
    }
    cumulative, waterfall = 1.0, []
    for step, factor in factors.items():
        cumulative *= factor
        waterfall.append(
            WaterfallStep(
                step=step, factor=factor, cumulative=cumulative, low=factor * 0.91, high=factor * 1.1
            )
        )
    chip = cumulative * 1.37
    curve = []
    for n in range(14):
        speed = 15 * 1.2**n
        away = math.log(speed / 36.3)
        per_chip = chip * math.exp((0.6 * away - away**2) / 1.3)
        curve.append(
            CurvePoint(
                interactivity=speed, per_chip=per_chip, per_mw=per_chip / 1.37, per_usd=per_chip / 1.52
            )
        )
    whole = Comparison(
        model=MODEL,
        isl=8192,
        osl=1024,
        interactivity=36.3,
        baseline="one box of 8, INT4, prefill and decode on the same chips",
        power="it",
        price="hyperscaler",
        points={
            "sample-hgx": mixed(36.3, 690.0, 8),
            "sample-nvl72": deployment(36.9, 690.0 * chip),
        },
        ratio=Ratio(
            per_chip=band(chip, 0.16), per_mw=band(cumulative, 0.16), per_usd=band(chip / 1.52, 0.18)
        ),
        waterfall=tuple(waterfall),
        curve=tuple(curve),
    )
    return replace(whole, **changes)


def make_sweep(experts=(), **changes):
    """Over the domain's size, and over experts as well where there are any."""
    rows = []
    for count in experts or (None,):
        for size in (8, 16, 24, 36, 48, 72, 144, 288, 576):
            values = {"model.experts": float(count)} if count else {}
            reached = 9241.0 * (size / 72) ** (0.62 if size <= 72 else 0.08) * (384 / (count or 384)) ** 0.2
            one = deployment(36.9, reached, decode=(1, max(size - 8, 8)))
            rows.append(
                Row(values={**values, "system.domain": float(size)}, deployment=one, reached=reached)
                if size > 8
                else Row(
                    values={**values, "system.domain": 8.0}, deployment=None, reached=None, why="12 GB short"
                )
            )
    at = [{"model.experts": float(count)} for count in experts] or [{}]
    stretches = ((16.0, 72.0, 0.62, "HBM for KV"), (72.0, 576.0, 0.08, "tensor cores in prefill"))
    fits = [
        Fit(
            over="system.domain",
            at=others,
            binding=binding,
            regime=Regime(
                first=first, last=last, exponent=exponent, low=exponent - 0.04, high=exponent + 0.05
            ),
        )
        for others in at
        for first, last, exponent, binding in stretches
    ]
    best = max((row for row in rows if row.reached), key=lambda row: row.reached)
    answer = Answer(
        question="which rack suits this model", best=best, gain=1.18, least=None if experts else rows[-2]
    )
    whole = Sweep(
        model=MODEL,
        system="sample-nvl72",
        isl=8192,
        osl=1024,
        interactivity=36.3,
        unit="tokens/s per chip",
        rows=tuple(rows),
        fits=tuple(fits),
        answer=answer,
    )
    return replace(whole, **changes)


SYSTEMS = {
    "sample-hgx": SampleSystem("sample-hgx", "Sample HGX", 8, chip=SampleChip(141e9)),
    "sample-nvl72": SampleSystem(),
}


@pytest.fixture
def system():
    return SYSTEMS["sample-nvl72"]


@pytest.fixture
def systems():
    return SYSTEMS


@pytest.fixture
def plan():
    return make_plan()


@pytest.fixture
def comparison():
    return make_comparison()


@pytest.fixture
def sweep():
    return make_sweep()


@pytest.fixture
def sweep_of_two():
    return make_sweep((128, 256, 384))
