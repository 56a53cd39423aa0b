"""Deployment files that `plan` writes: what it found, and a layout that runs on this machine.

    version = 1
    [deployment]            # what `serve` runs, with a model that is here
    [[group]]               # the plan's pools at reduced size
    [plan]                  # model, system, lengths, format of the experts
    [[plan.pool]]           # the pools as planned
    [plan.point]            # what they reach

`serve` reads the first three tables, `simulate` and `export` the others.
"""

import tomllib
from collections.abc import Iterator
from dataclasses import fields
from math import gcd, isfinite, nan
from pathlib import Path
from typing import Any

from rackscale.core import SpecError
from rackscale.plan.types import Band, PlannedDeployment, PlanPoint, PoolPlan
from rackscale.specs import DeploymentFile, GroupEntry, Role, format_deployment, parse_deployment, toml_value
from rackscale.specs.catalog.table import Table
from rackscale.specs.sizing import DEFAULT_MAX_RUNNING

STAND_IN = "models/austen-moe"  # the model that comes with the project
RANKS_HERE = 4  # of all pools together, where no other number is given
TEXTS = ("model", "system", "weights", "binding")
BANDS = ("tokens_per_s_per_chip", "tpot_s", "ttft_s")
SCALARS = (
    "output_tokens_per_s_per_chip",
    "ttft_p99_s",
    "tpot_p99_s",
    "tokens_per_s_per_mw",
    "usd_per_mtok",
    "concurrency",
)


def write_deployment(
    planned: PlannedDeployment, path: Path, *, stand_in: str = STAND_IN, ranks: int = RANKS_HERE
) -> None:
    """Write a plan down. stand_in: the folder of the model that `serve` runs in the planned one's place;
    ranks: how many it runs. Raises SpecError where the file cannot be written."""
    try:
        path.write_text(format_planned(planned, stand_in=stand_in, ranks=ranks), encoding="utf-8")
    except OSError as error:
        raise SpecError(f"{path} cannot be written ({error.strerror})", hint="give another --out") from None


def format_planned(planned: PlannedDeployment, *, stand_in: str = STAND_IN, ranks: int = RANKS_HERE) -> str:
    """The file's text."""
    small = reduced(planned, stand_in=stand_in, ranks=ranks)
    where = f"{planned.point.chips} chips of {toml_value(planned.system)}"
    head = (
        f"# [plan]: {toml_value(planned.model)} on {where}, by `rackscale plan`.\n"
        f"# [[group]]: its pools with {small.num_ranks} ranks, for `rackscale serve` here.\n\n"
    )
    return head + format_deployment(small) + "\n".join(_lines(planned)) + "\n"


def reduced(planned: PlannedDeployment, *, stand_in: str, ranks: int = RANKS_HERE) -> DeploymentFile:
    """The pools with so many ranks in all: one group of each, ranks in the ratio of the pools' chips and at
    least one each, tp cut to what divides them, a redundant expert for each rank where the plan has some,
    and no more rows than planned. Raises SpecError where there are fewer ranks than pools."""
    chips = [pool.chips for pool in planned.pools]
    if ranks < len(chips):
        raise SpecError(f"{ranks} ranks for {len(chips)} pools", hint=f"give at least {len(chips)}")
    ranks = min(ranks, sum(chips))
    shares = [1] * len(chips)
    while sum(shares) < ranks:
        short = max(range(len(chips)), key=lambda pool: (chips[pool] / shares[pool], -pool))
        shares[short] += 1
    groups = tuple(
        GroupEntry(
            role=pool.role,
            num_ranks=share,
            tp=gcd(pool.tp, share),
            max_running=min(DEFAULT_MAX_RUNNING, max(1, round(pool.batch_per_rank)))
            if pool.batch_per_rank
            else DEFAULT_MAX_RUNNING,
            redundant_experts=share if pool.redundant_experts else 0,
        )
        for pool, share in zip(planned.pools, shares, strict=True)
    )
    return DeploymentFile(model=stand_in, groups=groups)


def read_planned(path: Path) -> PlannedDeployment:
    """The plan of a file, without its operators and memory, which are not written down.

    Raises SpecError where the file cannot be read, has no [plan], or has a wrong field.
    """
    planned = find_planned(path)
    if planned is None:
        raise SpecError(f"{path} has no [plan]", hint="give a file that `rackscale plan --out` wrote")
    return planned


def find_planned(path: Path) -> PlannedDeployment | None:
    """The same; None where a deployment file has no [plan]."""
    try:
        text = path.read_bytes().decode()
    except OSError as error:
        raise SpecError(f"{path} cannot be read ({error.strerror})", hint="give a deployment file") from None
    except UnicodeDecodeError:
        raise SpecError(f"{path} is no UTF-8", hint="give a deployment file in TOML") from None
    parse_deployment(text, source=str(path))
    plan = Table(tomllib.loads(text), str(path)).sub("plan", required=False)
    return None if plan is None else _planned(plan)


def _lines(planned: PlannedDeployment) -> Iterator[str]:
    yield from ("", "[plan]")
    yield from (f"{name} = {toml_value(getattr(planned, name))}" for name in TEXTS)
    yield from (f"isl = {planned.isl}", f"osl = {planned.osl}")
    for pool in planned.pools:
        yield from ("", "[[plan.pool]]")
        values = {field.name: getattr(pool, field.name) for field in fields(pool)}
        yield from (f"{name} = {toml_value(value)}" for name, value in values.items() if value)
    yield from ("", "[plan.point]", f"chips = {planned.point.chips}")
    for name in SCALARS:
        if isfinite(value := getattr(planned.point, name)):
            yield f"{name} = {toml_value(float(value))}"
    for name in BANDS:
        band: Band = getattr(planned.point, name)
        inside = ", ".join(
            f"{end} = {toml_value(float(getattr(band, end)))}"
            for end in ("value", "low", "high")
            if isfinite(getattr(band, end))
        )
        yield f"{name} = {{ {inside} }}"


def _planned(plan: Table) -> PlannedDeployment:
    values = {name: plan.text(name) for name in TEXTS}
    isl, osl = plan.whole("isl"), plan.whole("osl")
    pools = tuple(_pool(table) for table in _tables(plan, "pool"))
    if not pools:
        raise SpecError(f"{plan.where} has no [[plan.pool]]", hint="add one for each pool")
    point = plan.need("point")
    plan.close()
    return PlannedDeployment(
        **values, isl=isl, osl=osl, pools=pools, point=_point(point), operators={}, memory={}
    )


def _tables(plan: Table, name: str) -> Iterator[Table]:
    value = plan.get(name)
    tables = value if isinstance(value, list) else []
    for number, table in enumerate(tables, start=1):
        if not isinstance(table, dict):
            raise SpecError(
                f"{name} in {plan.where} is no table", hint=f"write [[plan.{name}]], then its keys"
            )
        yield Table(table, f"{plan.where.partition(', [')[0]}, [[plan.{name}]] {number}")


def _pool(table: Table) -> PoolPlan:
    pool = PoolPlan(
        role=Role(table.choice("role", list(Role))),
        groups=table.whole("groups"),
        ranks=table.whole("ranks"),
        tp=table.whole("tp"),
        ep=table.whole("ep"),
        redundant_experts=table.whole("redundant_experts", 0, least=0),
        batch_per_rank=table.number("batch_per_rank", 0.0),
        batch_tokens=table.whole("batch_tokens", 0, least=0),
        micro_batches=table.whole("micro_batches", 1),
    )
    table.close()
    if pool.ranks % pool.tp or pool.ranks % pool.ep:
        raise SpecError(
            f"{table.where} has ranks = {pool.ranks}, tp = {pool.tp} and ep = {pool.ep}",
            hint="both must divide ranks",
        )
    return pool


def _point(table: Table) -> PlanPoint:
    values: dict[str, Any] = {name: _band(table.need(name)) for name in BANDS}
    values |= {name: table.number(name, nan) for name in SCALARS}
    point = PlanPoint(chips=table.whole("chips"), **values)
    table.close()
    return point


def _band(table: Table) -> Band:
    band = Band(
        value=table.number("value", nan), low=table.number("low", nan), high=table.number("high", nan)
    )
    table.close()
    return band
