"""Systems between two others: every field is the one's or the other's."""

from dataclasses import replace

import pytest
from planning import question

from rackscale.plan.compare.hybrid import Switch, hybrid, switches
from rackscale.specs.catalog import load_system

FIRST = question("kimi-k2-thinking", "hgx-h200", weights="int4", role="mixed", chips=8, max_ep=8)
LAST = question("kimi-k2-thinking", "gb200-nvl72", weights="nvfp4", role="disaggregated", chips=72)
ALL = set(Switch) - {Switch.SOFTWARE}


def physical(asked):
    """What a search looks at."""
    system, chip = asked.system, asked.system.chip
    return {
        "weights": asked.weights,
        "role": asked.role,
        "max_ep": asked.max_ep,
        "chips": asked.chips,
        "flops": dict(chip.tensor_flops),
        "memory": (chip.hbm_bytes, chip.hbm_bytes_per_s),
        "host": (system.host_bytes_per_chip, system.host_link_bytes_per_s),
        "generation": chip.generation,
        "domain": (system.domain_chips, system.scale_up_bytes_per_s, system.scale_out_bytes_per_s),
    }


def test_ends_are_the_systems_themselves():
    assert physical(hybrid(FIRST, LAST, set())) == physical(FIRST)
    assert physical(hybrid(FIRST, LAST, ALL)) == physical(LAST)


@pytest.mark.parametrize(
    ("switch", "changed"),
    [
        (Switch.FORMATS, {"weights", "flops"}),
        (Switch.MATHS, {"flops", "generation"}),
        (Switch.MEMORY, {"memory", "host"}),
        (Switch.DOMAIN, {"domain", "max_ep", "chips"}),
        (Switch.ROLES, {"role", "chips"}),
    ],
)
def test_a_switch_changes_its_own(switch, changed):
    before, after = physical(FIRST), physical(hybrid(FIRST, LAST, {switch}))
    assert {name for name in before if before[name] != after[name]} == changed


def test_fp4_units_are_in_proportion_to_the_chip_that_has_them():
    rates = hybrid(FIRST, LAST, {Switch.FORMATS}).system.chip.tensor_flops
    theirs = LAST.system.chip.tensor_flops
    assert rates["bf16"] == FIRST.system.chip.tensor_flops["bf16"]
    assert rates["fp4"] / rates["bf16"] == pytest.approx(theirs["fp4"] / theirs["bf16"])
    assert "fp4" not in hybrid(FIRST, LAST, {Switch.MATHS}).system.chip.tensor_flops


def test_names_of_what_differs():
    found = switches(FIRST, LAST)
    assert list(found.names.values()) == [
        "weights and maths in NVFP4",
        "tensor cores, their kernels, cache format",
        "memory bandwidth and size",
        "domain of 72: wide EP and its all-to-all",
        "disaggregation",
    ]
    assert physical(found.question(0)) == physical(FIRST)
    assert physical(found.question(31)) == physical(LAST)
    assert physical(found.question(0b100)) == physical(hybrid(FIRST, LAST, {Switch.MEMORY}))


def test_the_same_format_takes_its_units_with_the_chip():
    first, last = replace(FIRST, weights="nvfp4"), replace(LAST, weights="nvfp4")
    assert Switch.FORMATS not in switches(first, last).names
    rates = hybrid(first, last, {Switch.MATHS}).system.chip.tensor_flops
    assert rates == LAST.system.chip.tensor_flops


def test_links_alone():
    other = replace(FIRST, system=replace(FIRST.system, scale_up_bytes_per_s=9e11))
    assert list(switches(FIRST, other).names.values()) == ["links"]


def test_another_engine_is_software():
    assert list(switches(FIRST, replace(FIRST, engine="trtllm")).names.values()) == ["software"]


def test_nothing_differs():
    assert not switches(FIRST, FIRST).names
    assert load_system("hgx-h200") == FIRST.system
