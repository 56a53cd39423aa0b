"""A planned deployment in the numbers that engines ask for."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

from rackscale.plan.export.result import PoolHosts
from rackscale.plan.model_source import CONFIG, model_of
from rackscale.plan.types import PlannedDeployment, PoolPlan
from rackscale.specs import Role
from rackscale.specs.catalog import CatalogModel, SystemSpec, load_system

# Chips of a host. A box is one host; of a rack, a tray: 4 chips in GB200, GB300 and VR200 NVL72
# (https://docs.nvidia.com/dynamo/dev/kubernetes-api/dynamo-graph-deployment.md counts them so too).
MOST_CHIPS_OF_A_BOX = 8
CHIPS_OF_A_TRAY = 4
BF16_CACHE = ("hopper",)  # generations whose recipes keep the cache in BF16, as predictions count it


@dataclass(frozen=True, kw_only=True, slots=True)
class PoolSetting:
    """A pool, and what follows from it for each of its groups.

    attentions: of a group, each with rows of its own. rows: sequences that an attention decodes together, 0
    in a prefill pool. slots: places for experts, a multiple of ep. hosts: of a group; gpus: of each.
    """

    pool: PoolPlan
    attentions: int
    rows: int
    experts: int
    slots: int
    hosts: int
    gpus: int

    @property
    def redundant(self) -> int:
        return self.slots - self.experts

    @property
    def spreads_experts(self) -> bool:
        return self.pool.ep > 1

    @property
    def words(self) -> str:
        """Groups and hosts."""
        plan = self.pool
        groups = f"{plan.groups} {plan.role} group{'' if plan.groups == 1 else 's'} of {plan.ranks} GPUs"
        return f"{groups}, each on {self.hosts} host{'' if self.hosts == 1 else 's'} with {self.gpus}"

    @property
    def placement(self) -> PoolHosts:
        """The same for who reads the export."""
        return PoolHosts(
            role=self.pool.role,
            groups=self.pool.groups,
            ranks=self.pool.ranks,
            hosts_per_group=self.hosts,
            gpus_per_host=self.gpus,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Setting:
    """A deployment for an engine. checkpoint: a folder or Hugging Face name. published: whether that is the
    model's own, in the planned format."""

    planned: PlannedDeployment
    model: CatalogModel
    system: SystemSpec
    checkpoint: str
    published: bool
    pools: tuple[PoolSetting, ...]

    @property
    def max_length(self) -> int:
        """Of a prompt and its answer."""
        return self.planned.isl + self.planned.osl

    @property
    def fp8_cache(self) -> bool:
        return self.system.chip.generation not in BF16_CACHE

    @property
    def is_amd(self) -> bool:
        return self.system.chip.generation.startswith("cdna")

    @property
    def disaggregated(self) -> bool:
        return all(pool.pool.role is not Role.MIXED for pool in self.pools)


def setting_of(planned: PlannedDeployment, *, checkpoint: str | None = None) -> Setting:
    """With checkpoint None, the published one. Raises SpecError where there is no such model or system."""
    model, system = model_of(planned.model), load_system(planned.system)
    experts = 0 if model.spec.moe is None else model.spec.moe.router.num_experts
    box = system.domain_chips if system.domain_chips <= MOST_CHIPS_OF_A_BOX else CHIPS_OF_A_TRAY
    return Setting(
        planned=planned,
        model=model,
        system=system,
        checkpoint=_published(planned, model) if checkpoint is None else checkpoint,
        published=checkpoint is not None or planned.weights == model.weights,
        pools=tuple(_pool(pool, experts, box) for pool in planned.pools),
    )


def _published(planned: PlannedDeployment, model: CatalogModel) -> str:
    """What the model says, or the folder that was planned from."""
    return model.hf_id or planned.model.removesuffix(f"/{CONFIG}")


def _pool(pool: PoolPlan, experts: int, box: int) -> PoolSetting:
    gpus = max(size for size in range(1, min(box, pool.ranks) + 1) if pool.ranks % size == 0)
    return PoolSetting(
        pool=pool,
        attentions=pool.ranks // pool.tp,
        rows=ceil(pool.batch_per_rank),
        experts=experts,
        slots=-(-(experts + pool.redundant_experts) // pool.ep) * pool.ep,
        hosts=pool.ranks // gpus,
        gpus=gpus,
    )


def names_of(pools: Sequence[PoolSetting]) -> list[str]:
    """A pool's name is its role; where there are several of one role, they are numbered."""
    roles = [pool.pool.role.value for pool in pools]
    return [
        role if roles.count(role) == 1 else f"{role}-{roles[: number + 1].count(role)}"
        for number, role in enumerate(roles)
    ]


def common_notes(setting: Setting) -> list[str]:
    """What every engine's reader must know."""
    notes = ["Written from a plan; not run against this engine."]
    planned = setting.planned
    if not setting.published:
        notes.append(
            f"The plan holds routed experts in {planned.weights}; {setting.checkpoint} is in"
            f" {setting.model.weights}: give one in {planned.weights} with --checkpoint."
        )
    for pool in setting.pools:
        domain = setting.system.domain_chips
        if pool.pool.ranks > domain:
            notes.append(
                f"A {pool.pool.role} group of {pool.pool.ranks} chips spans"
                f" {-(-pool.pool.ranks // domain)} domains of {domain}."
            )
        if pool.redundant != pool.pool.redundant_experts and pool.spreads_experts:
            notes.append(
                f"{pool.redundant} redundant experts instead of {pool.pool.redundant_experts}, so that slots"
                f" divide by EP{pool.pool.ep}."
            )
    return notes
