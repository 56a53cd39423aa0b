"""Rows of measured collectives, as `data/collectives.csv` has them: what was sent, and how long it took."""

import csv
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rackscale.core import SpecError
from rackscale.cost import Chips
from rackscale.cost.collectives import Exchange, Links, Protocol, protocol_of
from rackscale.cost.collectives.protocols import PHASES
from rackscale.specs.catalog import load_system

Array = NDArray[np.float64]

COLUMNS = (
    "system", "kernel", "ep", "tokens_per_rank", "hidden", "topk", "experts",
    "dispatch_dtype", "combine_dtype", "dispatch_us", "combine_us",
)  # fmt: skip
FORMATS = {
    "bfloat16": "bf16",
    "default": "bf16",  # vLLM's benchmark does not say: activations as they are
    "fp8": "fp8",
    "mxfp8": "mxfp8",
    "nvfp4": "nvfp4",
    "fp4": "nvfp4",
    "low precision": "nvfp4",  # TensorRT-LLM's, beside dispatch in NVFP4
}
DEEPSEEK_EXPERTS, DEEPSEEK_GROUPS, DEEPSEEK_GROUPS_PER_TOKEN = 256, 8, 4
DEEPEP_BOXES = 4  # that a token goes to at most
US_PER_S = 1e6


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One measurement. seconds: by phase, those that were measured."""

    system: str
    kernel: str
    protocol: Protocol
    ranks: int
    exchange: Exchange
    links: Links
    seconds: Mapping[str, float]

    @property
    def configuration(self) -> tuple[str, ...]:
        """Rows that differ only in their tokens share it."""
        exchange = self.exchange
        return (self.system, self.kernel, str(self.ranks), exchange.dispatch, exchange.combine)


@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    """rows: those that can be predicted. skipped: the others, by reason."""

    rows: Sequence[Row]
    skipped: Mapping[str, int]


def read_collectives(path: Path) -> Table:
    """Raises SpecError where the file is not such a table."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(f"{path} cannot be read", hint="give a CSV file of collectives") from error
    reader = csv.DictReader(lines)
    missing = [name for name in COLUMNS if name not in (reader.fieldnames or ())]
    if missing:
        raise SpecError(f"{path} has no column {missing[0]}", hint=f"it must have {', '.join(COLUMNS)}")
    rows: list[Row] = []
    skipped: Counter[str] = Counter()
    for cells in reader:
        try:
            row = _row(cells)
        except ValueError:
            row = "a number cannot be read"
        if isinstance(row, Row):
            rows.append(row)
        else:
            skipped[row] += 1
    return Table(rows=rows, skipped=dict(skipped))


def _row(cells: Mapping[str, str]) -> Row | str:
    """A row, or why there is none."""
    seconds = {phase: float(cells[f"{phase}_us"]) / US_PER_S for phase in PHASES if cells.get(f"{phase}_us")}
    if not seconds:
        return "bandwidth published, no time"
    if not cells["tokens_per_rank"]:
        return "tokens per rank not published"
    for name in ("dispatch_dtype", "combine_dtype"):
        if cells[name] not in FORMATS:
            return f"unknown format {cells[name]}"
    try:
        system = load_system(cells["system"].lower().replace(" ", "-"))
        protocol = protocol_of(cells["kernel"])
    except SpecError as error:
        return error.what
    domains = math.ceil(int(float(cells["ep"])) / system.domain_chips)
    if domains > 1 and not protocol.traits.leaves_domain:
        return f"{protocol.family} stays in a domain"
    return Row(
        system=cells["system"],
        kernel=cells["kernel"],
        protocol=protocol,
        ranks=int(float(cells["ep"])),
        exchange=_exchange(cells, protocol, domains),
        links=Links.of(Chips.of([system])),
        seconds=seconds,
    )


def _exchange(cells: Mapping[str, str], protocol: Protocol, domains: int) -> Exchange:
    groups, groups_per_token = _groups(cells, protocol, domains)
    return Exchange(
        ranks=float(cells["ep"]),
        tokens_per_rank=float(cells["tokens_per_rank"]),
        hidden=float(cells["hidden"]),
        top_k=float(cells["topk"]),
        dispatch=FORMATS[cells["dispatch_dtype"]],
        combine=FORMATS[cells["combine_dtype"]],
        groups=groups,
        groups_per_token=groups_per_token,
        balanced=protocol.family in ("one_sided", "two_sided"),
    )


def _groups(cells: Mapping[str, str], protocol: Protocol, domains: int) -> tuple[int, int]:
    """Groups of experts and those that a token goes to, as each benchmark makes them up.

    DeepEP's test of `normal` (test_internode.py) makes a group of each box, and lets a token go to four.
    TensorRT-LLM's runs a model's own router, which has groups in DeepSeek V3 but not with 384 experts, where
    the same bytes take 1.25 times as long.
    """
    if protocol.kernel == "normal":
        return domains, min(domains, DEEPEP_BOXES)
    if protocol.kernel == "trtllm_deepep_ht" and float(cells["experts"]) == DEEPSEEK_EXPERTS:
        return DEEPSEEK_GROUPS, DEEPSEEK_GROUPS_PER_TOKEN
    return 1, 1
