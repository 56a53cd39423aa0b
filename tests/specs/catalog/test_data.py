"""Every file of the catalog, against the facts that it was written from."""

import csv
import re
from pathlib import Path
from types import ModuleType

import pytest

import rackscale.specs.catalog
from rackscale.specs.catalog import ChipSpec, load_chip, load_model, load_system, names
from rackscale.specs.catalog.fact import CONFIDENCES

LOADERS = {"chips": load_chip, "systems": load_system, "models": load_model}
ALL = [(kind, name) for kind in LOADERS for name in names(kind)]
FACTS = Path(__file__).parents[4] / "shared" / "facts"
needs_facts = pytest.mark.skipif(not FACTS.exists(), reason="../shared/facts is not here")

SYSTEMS = {
    "hgx-h100": "HGX H100",
    "hgx-h800": "HGX H800",
    "hgx-h200": "HGX H200",
    "hgx-b200": "HGX B200",
    "hgx-b300": "HGX B300",
    "gb200-nvl72": "GB200 NVL72",
    "gb300-nvl72": "GB300 NVL72",
    "vr200-nvl72": "VR200 NVL72 (announced as NVL144)",
    "mi300x": "MI300X x8",
    "mi325x": "MI325X x8",
    "mi355x": "MI355X x8",
}
# Quantities of the facts whose names differ from a catalog fact's.
RENAMED = {
    "tensor_fp4_dense": "tensor_fp4",
    "tensor_fp8_dense": "tensor_fp8",
    "tensor_bf16_dense": "tensor_bf16",
    "chip_tdp": "tdp",
    "scale_up_domain": "domain",
    "scale_up_bandwidth": "scale_up",
    "scale_out_bandwidth": "scale_out",
    "all_in_power": "power_it",
    "all_in_power_old": "power_utility",
}


def test_the_names_are_those_that_were_agreed():
    assert set(names("systems")) == set(SYSTEMS)
    assert len(names("models")) == 18
    assert {load_system(name).chip.name for name in names("systems")} == set(names("chips"))


@pytest.mark.parametrize(("kind", "name"), ALL)
def test_a_file_loads_and_says_where_each_number_is_from(kind, name):
    entry = LOADERS[kind](name)
    assert entry.name == name
    for fact in entry.facts.values():
        assert fact.source
        assert fact.confidence in CONFIDENCES
        if fact.confidence == "derived":
            assert fact.note or kind == "models"


@pytest.mark.parametrize("name", names("chips"))
def test_a_narrower_format_is_no_slower(name):
    chip: ChipSpec = load_chip(name)
    rates = [chip.tensor_flops[maths] for maths in ("bf16", "fp8", "fp4") if maths in chip.tensor_flops]
    assert rates == sorted(rates)
    assert ("fp4" in chip.tensor_flops) == (chip.generation in ("blackwell", "rubin", "cdna4"))


@needs_facts
@pytest.mark.parametrize("name", names("systems"))
def test_values_are_those_of_the_facts(name):
    facts = load_system(name).facts
    missing = []
    with (FACTS / "hardware.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["system"] == SYSTEMS[name]]
    assert rows
    for row in rows:
        known = _values_of(facts, RENAMED.get(row["quantity"], row["quantity"]))
        numbers = [float(text) for text in re.findall(r"\d+(?:\.\d+)?", row["value"])]
        unsupported = row["value"] in ("0", "") or row["quantity"] == "chip"
        if not unsupported and not (row["value"] in known or set(numbers) <= known):
            missing.append((row["quantity"], row["value"], known))
    assert missing == []


def _values_of(facts, name):
    """Values under the name, or what stands beside it: labels, earlier prices, placeholders."""
    aliases = {
        "hbm_label": ("hbm",),
        "hbm_reported": ("hbm",),
        "hbm_bandwidth": ("hbm_bandwidth_label",),
        "hbm_bandwidth_reported": ("hbm_bandwidth",),
        "cpu_link": ("host_link", "superchip_host_link"),
        "power_utility": ("power_utility_placeholder",),
        "cost_rental": ("cost_rental_earlier",),
    }
    values = {facts[key].value for key in (name, *aliases.get(name, ())) if key in facts}
    if name == "hbm_reported":  # in GiB there, to fewer digits
        values |= {round(float(value) / 1024, 1) for value in values}
    return values


@needs_facts
def test_models_are_those_of_the_facts():
    with (FACTS / "models.csv").open(newline="") as file:
        rows = {row["hf_id"]: row for row in csv.DictReader(file)}
    for name in names("models"):
        model = load_model(name)
        row, facts = rows[model.hf_id], model.facts
        assert model.spec.num_layers == int(row["layers"])
        assert model.spec.hidden == int(row["hidden"])
        assert model.spec.moe.router.num_experts == int(row["routed_experts"])
        assert model.context == int(row["context"] or 202752)
        for key in ("total_params", "active_params", "active_params_no_embed", "kv_bytes_per_token_fp8"):
            assert (facts[key].value if key in facts else "") == (float(row[key]) if row[key] else "")


def test_the_catalog_exports_what_it_says():
    public = {
        key
        for key, value in vars(rackscale.specs.catalog).items()
        if not key.startswith("_") and not isinstance(value, ModuleType)
    }
    assert set(rackscale.specs.catalog.__all__) == public
