from dataclasses import replace

import pytest
from user_files import chip, fact, system, write

from rackscale.core import SpecError
from rackscale.specs.catalog import load_chip, load_system


def test_a_rack_in_base_units():
    rack = load_system("gb200-nvl72")
    assert rack.chip is load_chip("gb200")
    assert rack.domain_chips == 72
    assert rack.scale_up_bytes_per_s == 900e9
    assert rack.scale_out_bytes_per_s == 50e9
    assert rack.host_bytes_per_chip == 240e9
    assert rack.host_link_bytes_per_s == 225e9  # two chips share a superchip's
    assert rack.power_w == {"it": 1870, "utility": 2100}
    assert rack.usd_per_chip_hour == {"hyperscaler": 1.86, "neocloud": 2.26, "rental": 4.0}
    assert not rack.announced


def test_what_does_not_ship_is_marked():
    assert load_system("vr200-nvl72").announced


def test_facts_of_the_chip_are_among_the_systems():
    rack = load_system("gb200-nvl72")
    assert rack.facts["hbm"] == rack.chip.facts["hbm"]
    assert rack.facts["rack_fast_memory"].value == 30


def test_both_powers_and_both_prices_are_kept():
    facts = load_system("hgx-h200").facts
    assert (facts["power_it"].value, facts["power_utility"].value) == (1.37, 1.73)
    assert (facts["cost_rental_earlier"].value, facts["cost_rental"].value) == (2.05, 2.9)
    assert facts["cost_hyperscaler_old"].value == 1.41


@pytest.mark.parametrize("name", ["hgx-b300", "gb300-nvl72"])
def test_a_placeholder_is_no_utility_power(name):
    system = load_system(name)
    assert system.facts["power_utility"].confidence == "derived"
    assert system.power_w["utility"] > system.power_w["it"] * 1.1
    assert "placeholder" in system.facts["power_utility_placeholder"].note


def test_a_system_of_ones_own(tmp_path):
    values = system(cost_rental=fact(3.5, "USD per chip-hour")) | {"announced": True}
    spec = load_system(write(tmp_path / "s.toml", values))
    assert spec.chip is load_chip("h200")
    assert spec.domain_chips == 16
    assert spec.scale_out_bytes_per_s == 100e9
    assert spec.host_bytes_per_chip == 1e12
    assert spec.power_w == {"it": 1500, "utility": 1800}
    assert spec.usd_per_chip_hour == {"rental": 3.5}
    assert spec.announced


def test_its_chip_may_be_a_file_beside_it_or_a_table(tmp_path):
    (tmp_path / "chips").mkdir()
    write(tmp_path / "chips" / "c.toml", chip())
    beside = load_system(write(tmp_path / "a.toml", system() | {"chip": "chips/c.toml"}))
    within = load_system(str(write(tmp_path / "b.toml", system() | {"chip": chip()})))
    assert beside.chip == within.chip
    assert beside.chip.name == "c1"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"chip": "h20"}, "the catalog has no chip 'h20': give h200"),
        ({"chip": 3}, "chip in {} is 3: it must be a text"),
        ({"facts": {}}, "{}, [facts] has no domain"),
        ({"announced": "yes"}, 'announced in {} is "yes": it must be true or false'),
        ({"price": 3}, "{} has an unknown 'price'"),
        ({"further": {"x": fact(None, "W")}}, "{}, [further.x] has no value"),
    ],
)
def test_a_wrong_field_is_named_with_its_file(tmp_path, change, message):
    path = write(tmp_path / "s.toml", system() | change)
    with pytest.raises(SpecError) as error:
        load_system(path)
    assert message.format(path) in str(error.value)


def test_a_domain_is_whole(tmp_path):
    path = write(tmp_path / "s.toml", system(domain=fact(7.5, "chips")))
    with pytest.raises(SpecError, match=r"domain in .* is 7\.5: it must be a whole number"):
        load_system(path)


def test_a_wrong_chip_within_is_named_with_its_table(tmp_path):
    path = write(tmp_path / "s.toml", system() | {"chip": chip(hbm=fact(0, "GB"))})
    with pytest.raises(SpecError, match=r"s\.toml, \[chip\.facts\.hbm\] is 0\.0"):
        load_system(path)


def test_a_system_is_a_key_and_can_be_varied():
    rack = load_system("gb200-nvl72")
    wider = replace(rack, domain_chips=576)
    assert {rack: 1, wider: 2}[replace(wider, domain_chips=72)] == 1
