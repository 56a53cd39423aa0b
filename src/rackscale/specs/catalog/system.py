"""Systems: chips, what joins them, the host beside them, and what they draw and cost."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from rackscale.core import SpecError
from rackscale.specs.catalog.chip import ChipSpec, chip_of, load_chip
from rackscale.specs.catalog.fact import (
    BYTES,
    BYTES_PER_S,
    CHIPS,
    USD_PER_HOUR,
    WATTS,
    Fact,
    Quantity,
    in_base_unit,
    read_facts,
    read_further,
)
from rackscale.specs.catalog.table import Table, is_path, open_table

POWERS = ("it", "utility")
PRICES = ("hyperscaler", "neocloud", "rental")
QUANTITIES = {
    "domain": Quantity(units=CHIPS),
    "scale_up": Quantity(units=BYTES_PER_S),
    "scale_out": Quantity(units=BYTES_PER_S),
    "host_memory": Quantity(units=BYTES),
    "host_link": Quantity(units=BYTES_PER_S),
    **{f"power_{power}": Quantity(units=WATTS) for power in POWERS},
    **{f"cost_{price}": Quantity(units=USD_PER_HOUR, required=False) for price in PRICES},
}


@dataclass(frozen=True, kw_only=True, slots=True)
class SystemSpec:
    """A rack or a box, and as many more of it as a deployment takes.

    domain_chips: joined by the scale-up fabric. Link rates are a chip's, one direction; host_link is to the
    memory of the host. power_w: all-in watts for each chip, by "it" (chip and its share of host and
    network cards) and "utility" (that and the facility's overhead, provisioned). usd_per_chip_hour: by
    "hyperscaler", "neocloud" and "rental", those that are known. announced: not shipping when written.
    facts: of the system and of its chip, as their sources give them.
    """

    name: str
    title: str = ""
    chip: ChipSpec
    domain_chips: int
    scale_up_bytes_per_s: float
    scale_out_bytes_per_s: float
    host_bytes_per_chip: float
    host_link_bytes_per_s: float
    power_w: Mapping[str, float] = field(hash=False)
    usd_per_chip_hour: Mapping[str, float] = field(hash=False)
    announced: bool = False
    facts: Mapping[str, Fact] = field(default_factory=dict, hash=False, repr=False)


def load_system(name_or_path: str | Path) -> SystemSpec:
    """A system of the catalog, or of a user's TOML file with the same fields. There, `chip` is a name of the
    catalog, a path that starts from the file's folder, or a table with a chip's fields.

    Raises SpecError where there is no such name or file, or where a field is missing or wrong.
    """
    if is_path(name_or_path):
        return _system_of(open_table("systems", name_or_path), Path(name_or_path).parent)
    return _named(str(name_or_path))


@cache
def _named(name: str) -> SystemSpec:
    return _system_of(open_table("systems", name), Path())


def _system_of(table: Table, folder: Path) -> SystemSpec:
    chip = _chip(table, folder)
    facts = read_facts(table.need("facts"), QUANTITIES)
    values = {name: in_base_unit(fact, QUANTITIES[name]) for name, fact in facts.items()}
    if values["domain"] % 1:
        raise SpecError(f"domain in {table.where} is {values['domain']}", hint="it must be a whole number")
    system = SystemSpec(
        name=table.text("name"),
        title=table.text("title"),
        chip=chip,
        domain_chips=int(values["domain"]),
        scale_up_bytes_per_s=values["scale_up"],
        scale_out_bytes_per_s=values["scale_out"],
        host_bytes_per_chip=values["host_memory"],
        host_link_bytes_per_s=values["host_link"],
        power_w={power: values[f"power_{power}"] for power in POWERS},
        usd_per_chip_hour={price: values[f"cost_{price}"] for price in PRICES if f"cost_{price}" in values},
        announced=table.flag("announced"),
        facts={**chip.facts, **facts, **read_further(table.sub("further", required=False))},
    )
    table.close()
    return system


def _chip(table: Table, folder: Path) -> ChipSpec:
    if isinstance(table.get("chip"), dict):
        return chip_of(table.need("chip"))
    chip = table.text("chip")
    return load_chip(folder / chip if is_path(chip) else chip)
