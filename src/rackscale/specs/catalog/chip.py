"""Chips: what one accelerator computes, holds and draws."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from rackscale.specs.catalog.fact import (
    BYTES,
    BYTES_PER_S,
    FLOPS,
    WATTS,
    Fact,
    Quantity,
    in_base_unit,
    read_facts,
    read_further,
)
from rackscale.specs.catalog.table import Table, is_path, open_table

GENERATIONS = ("hopper", "blackwell", "rubin", "cdna3", "cdna4", "other")
MATHS = ("bf16", "fp8", "fp4")
QUANTITIES = {
    "tensor_bf16": Quantity(units=FLOPS),
    "tensor_fp8": Quantity(units=FLOPS, required=False),
    "tensor_fp4": Quantity(units=FLOPS, required=False),
    "hbm": Quantity(units=BYTES),
    "hbm_bandwidth": Quantity(units=BYTES_PER_S),
    "tdp": Quantity(units=WATTS),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class ChipSpec:
    """One accelerator, as its datasheet and its driver have it.

    tensor_flops: dense FLOP/s by "bf16", "fp8", "fp4"; what is missing has no units of its own.
    hbm_bytes: what the driver reports where that is known. The label of a "180 GB" chip may be 7 % off.
    """

    name: str
    title: str = ""
    generation: str
    tensor_flops: Mapping[str, float] = field(hash=False)
    hbm_bytes: float
    hbm_bytes_per_s: float
    tdp_w: float
    facts: Mapping[str, Fact] = field(default_factory=dict, hash=False, repr=False)


def load_chip(name_or_path: str | Path) -> ChipSpec:
    """A chip of the catalog, or of a user's TOML file with the same fields.

    Raises SpecError where there is no such name or file, or where a field is missing or wrong.
    """
    return chip_of(open_table("chips", name_or_path)) if is_path(name_or_path) else _named(str(name_or_path))


@cache
def _named(name: str) -> ChipSpec:
    return chip_of(open_table("chips", name))


def chip_of(table: Table) -> ChipSpec:
    """The chip that a table describes. Raises SpecError naming the field that is missing or wrong."""
    facts = read_facts(table.need("facts"), QUANTITIES)
    values = {name: in_base_unit(fact, QUANTITIES[name]) for name, fact in facts.items()}
    chip = ChipSpec(
        name=table.text("name"),
        title=table.text("title"),
        generation=table.choice("generation", GENERATIONS),
        tensor_flops={math: values[f"tensor_{math}"] for math in MATHS if f"tensor_{math}" in values},
        hbm_bytes=values["hbm"],
        hbm_bytes_per_s=values["hbm_bandwidth"],
        tdp_w=values["tdp"],
        facts=facts | read_further(table.sub("further", required=False)),
    )
    table.close()
    return chip
