"""Facts: numbers with their unit, where they are from, and how far to trust them."""

from collections.abc import Mapping
from dataclasses import dataclass

from rackscale.core import SpecError
from rackscale.specs.catalog.table import Table, closest

CONFIDENCES = ("vendor", "vendor restated", "announced", "measured", "analyst", "derived", "assumed")

# What one of a unit is in the base unit: FLOP/s, bytes, bytes per second, watts, dollars, pieces.
FLOPS = {"FLOP/s": 1.0, "GFLOP/s": 1e9, "TFLOP/s": 1e12, "PFLOP/s": 1e15}
BYTES = {
    "B": 1.0,
    "GB": 1e9,
    "TB": 1e12,
    "MiB": float(1 << 20),
    "GiB": float(1 << 30),
    "TiB": float(1 << 40),
}
BYTES_PER_S = {"B/s": 1.0, "GB/s": 1e9, "TB/s": 1e12, "Gb/s": 1e9 / 8}
WATTS = {"W": 1.0, "kW": 1e3}
USD_PER_HOUR = {"USD per chip-hour": 1.0}
CHIPS = {"chips": 1.0}

_OF_A_CHIP = (" per direction", " per chip")  # words that a unit may end with; every figure is of this kind


@dataclass(frozen=True, kw_only=True, slots=True)
class Fact:
    """One number (or a few words), as its source gives it.

    confidence: one of `CONFIDENCES`: read in the vendor's own document; the vendor's figure read
    second-hand; of a product not shipping when written; measured; of an analyst; our arithmetic, the note
    says from what; an assumption. note: what a reader must know before using it.
    """

    value: float | str
    unit: str
    source: str
    confidence: str
    note: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Quantity:
    """What a file may say: in which units, and whether it must."""

    units: Mapping[str, float]
    required: bool = True


def read_facts(table: Table, quantities: Mapping[str, Quantity]) -> dict[str, Fact]:
    """The facts of a table, each of them one of the quantities.

    Raises SpecError naming the file and the fact where one is missing, unknown, no number above 0, or in a
    unit that its quantity does not have.
    """
    facts: dict[str, Fact] = {}
    for name, quantity in quantities.items():
        entry = table.sub(name, required=quantity.required)
        if entry is None:
            continue
        facts[name] = fact = read_fact(entry)
        if not isinstance(fact.value, float) or fact.value <= 0:
            raise SpecError(f"value in {entry.where} is {fact.value!r}", hint="it must be a number above 0")
        if _plain(fact.unit) not in quantity.units:
            raise SpecError(
                f"unit in {entry.where} is {fact.unit!r}",
                hint=closest(_plain(fact.unit), quantity.units, "give"),
            )
    table.close()
    return facts


def read_further(table: Table | None) -> dict[str, Fact]:
    """Facts that nothing is computed from: other figures for the same thing, and what a reader may ask for.
    Their units are free. Raises SpecError where a field of one is missing."""
    return {} if table is None else {name: read_fact(entry) for name, entry in table.subs()}


def read_fact(entry: Table) -> Fact:
    """One fact. Raises SpecError naming the field that is missing, unknown or of a wrong kind."""
    fact = Fact(
        value=entry.number_or_text("value"),
        unit=entry.text("unit", ""),
        source=entry.text("source"),
        confidence=entry.choice("confidence", CONFIDENCES),
        note=entry.text("note", ""),
    )
    entry.close()
    return fact


def in_base_unit(fact: Fact, quantity: Quantity) -> float:
    """A fact that `read_facts` has checked, in its quantity's base unit."""
    return float(fact.value) * quantity.units[_plain(fact.unit)]


def _plain(unit: str) -> str:
    for words in _OF_A_CHIP:
        unit = unit.removesuffix(words)
    return unit
