"""What a plan says: plain data that verbs print, reports draw and exports write."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from rackscale.specs import Role


class Objective(StrEnum):
    """What is got the most of: tokens per second by chip, by megawatt, or by dollar."""

    CHIP = "chip"
    MW = "mw"
    USD = "usd"


@dataclass(frozen=True, kw_only=True, slots=True)
class Band:
    """A prediction and the interval that holds the truth nine times of ten."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True, slots=True)
class PoolPlan:
    """Groups of one role. ranks: of each group. tp: ranks that share an attention. ep: ranks that the experts
    of a layer are spread over; with ep 1 each expert is split over all ranks. batch_per_rank: sequences that
    a rank decodes together, 0 in a prefill pool. batch_tokens: prompt tokens of a rank's step, 0 in a decode
    pool. micro_batches: 2 where one's all-to-all runs under the other's computing."""

    role: Role
    groups: int
    ranks: int
    tp: int
    ep: int
    redundant_experts: int = 0
    batch_per_rank: float = 0.0
    batch_tokens: int = 0
    micro_batches: int = 1

    @property
    def chips(self) -> int:
        return self.groups * self.ranks


@dataclass(frozen=True, kw_only=True, slots=True)
class OperatorTime:
    """An operator's part in one step of a rank. bound: what sets its time, in words ("HBM", "tensor cores",
    "link", "latency"). formula: the function that computed it, by its dotted name. source: of the formula."""

    name: str
    seconds: float
    flops: float
    bytes_hbm: float
    bytes_link: float
    bound: str
    formula: str
    source: str


@dataclass(frozen=True, kw_only=True, slots=True)
class MemoryShare:
    """Bytes of a rank's memory, and what for ("routed experts", "attention", "KV cache", "free")."""

    name: str
    bytes: float


@dataclass(frozen=True, kw_only=True, slots=True)
class PlanPoint:
    """What a deployment reaches. tokens_per_s_per_chip counts input and output over all chips. concurrency:
    requests in the whole deployment."""

    tokens_per_s_per_chip: Band
    output_tokens_per_s_per_chip: float
    tpot_s: Band
    ttft_s: Band
    ttft_p99_s: float
    tpot_p99_s: float
    tokens_per_s_per_mw: float
    usd_per_mtok: float
    chips: int
    concurrency: float


@dataclass(frozen=True, kw_only=True, slots=True)
class PlannedDeployment:
    """A deployment, what it reaches, and why it does not reach more.

    weights: format of the routed experts. binding: the constraint that is met first, in words. operators and
    memory: by the role of the pool.
    """

    model: str
    system: str
    isl: int
    osl: int
    weights: str
    pools: tuple[PoolPlan, ...]
    point: PlanPoint
    binding: str
    operators: Mapping[Role, tuple[OperatorTime, ...]]
    memory: Mapping[Role, tuple[MemoryShare, ...]]

    def pool(self, role: Role) -> PoolPlan:
        """The pool that does the role's work; a mixed one does both."""
        return next(pool for pool in self.pools if pool.role in (role, Role.MIXED))


@dataclass(frozen=True, kw_only=True, slots=True)
class Alternative:
    """Another kind of layout at its best, and in words why it is not the plan."""

    deployment: PlannedDeployment
    why_not: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """best meets the service level; pareto is of tokens per second and user against the objective, in
    falling speed of users. searched: layouts that were looked at."""

    model: str
    system: str
    isl: int
    osl: int
    objective: Objective
    interactivity: float | None
    ttft_s: float | None
    best: PlannedDeployment
    pareto: tuple[PlannedDeployment, ...]
    alternatives: tuple[Alternative, ...]
    searched: int
    seconds: float


@dataclass(frozen=True, kw_only=True, slots=True)
class WaterfallStep:
    """A switch between two systems and its share of the ratio: over all orders of the switches, the mean of
    the logarithms (Shapley). cumulative: the product so far."""

    step: str
    factor: float
    cumulative: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Ratio:
    """The second system over the first, each of the best deployment at the same interactivity."""

    per_chip: Band
    per_mw: Band
    per_usd: Band


@dataclass(frozen=True, kw_only=True, slots=True)
class CurvePoint:
    """Ratios at another interactivity, tokens per second and user."""

    interactivity: float
    per_chip: float
    per_mw: float
    per_usd: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """The last of the systems over the first. baseline: what the first was allowed to do, in words. power:
    "it" or "utility". price: "hyperscaler", "neocloud" or "rental"."""

    model: str
    isl: int
    osl: int
    interactivity: float
    baseline: str
    power: str
    price: str
    points: Mapping[str, PlannedDeployment]
    ratio: Ratio
    waterfall: tuple[WaterfallStep, ...]
    curve: tuple[CurvePoint, ...]
