import pytest
from hypothesis import given
from hypothesis import strategies as st
from user_files import chip, fact, write

from rackscale.core import SpecError
from rackscale.specs.catalog import load_chip
from rackscale.specs.catalog.chip import chip_of
from rackscale.specs.catalog.table import Table


def test_a_chip_in_base_units():
    h200 = load_chip("h200")
    assert h200.generation == "hopper"
    assert h200.tensor_flops == {"bf16": 989e12, "fp8": 1979e12}
    assert h200.hbm_bytes_per_s == 4.8e12
    assert h200.tdp_w == 700


@pytest.mark.parametrize(
    ("name", "gb"),
    [
        ("h100", 85.520809984),
        ("h200", 150.754820096),
        ("b200", 191.5018543104),
        ("gb200", 198.674743296),
        ("b300", 288.40034304),
        ("gb300", 298.013687808),
        ("mi300x", 206.141652992),
        ("mi355x", 309.220868096),
    ],
)
def test_memory_is_what_the_driver_reports(name, gb):
    chip = load_chip(name)
    assert chip.hbm_bytes == pytest.approx(gb * 1e9, rel=1e-12)
    assert chip.facts["hbm"].confidence == "measured"
    assert chip.facts["hbm_label"].value < gb  # labels are of GiB


def test_bandwidth_of_b200_is_that_of_its_bus():
    b200 = load_chip("b200")
    assert b200.hbm_bytes_per_s == 7.67e12
    assert b200.facts["hbm_bandwidth_label"].value == 8


def test_a_name_is_read_once():
    assert load_chip("h200") is load_chip("h200")


def test_a_file_of_ones_own(tmp_path):
    spec = load_chip(write(tmp_path / "c.toml", chip() | {"further": {"label": fact("100 G", "")}}))
    assert spec.tensor_flops == {"bf16": 1e15}
    assert spec.hbm_bytes == 100 << 30
    assert spec.tdp_w == 500
    assert spec.facts["label"].value == "100 G"
    assert load_chip(str(tmp_path / "c.toml")) == spec


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hbm": fact(-1, "GB")}, "value in {}, [facts.hbm] is -1.0: it must be a number above 0"),
        ({"hbm": fact("much", "GB")}, "value in {}, [facts.hbm] is 'much': it must be a number above 0"),
        ({"hbm": fact(1, "GiB/s")}, "unit in {}, [facts.hbm] is 'GiB/s': give GiB"),
        ({"hbm": fact(1, None)}, "unit in {}, [facts.hbm] is '': give one of B, GB, TB, MiB, GiB, TiB"),
        ({"hbm": fact(1, "GB", source=None)}, "{}, [facts.hbm] has no source: add it: a text"),
        ({"hbm": fact(1, "GB", confidence="guess")}, "confidence in {}, [facts.hbm] is 'guess': give one of"),
        ({"hbm": fact(1, "GB", sauce="x")}, "{}, [facts.hbm] has an unknown 'sauce'"),
        ({"hbm": 80}, "hbm in {}, [facts] is 80: it must be a table"),
        (
            {"tensor_fp5": fact(1, "PFLOP/s")},
            "{}, [facts] has an unknown 'tensor_fp5': leave it out, or give",
        ),
    ],
)
def test_a_wrong_fact_is_named_with_its_file(tmp_path, change, message):
    path = write(tmp_path / "c.toml", chip(**change))
    with pytest.raises(SpecError) as error:
        load_chip(path)
    assert message.format(path) in str(error.value)


def test_a_missing_fact_is_named(tmp_path):
    values = chip()
    del values["facts"]["tdp"]
    with pytest.raises(SpecError, match=r"c\.toml, \[facts\] has no tdp: add it: a table"):
        load_chip(write(tmp_path / "c.toml", values))


def test_an_unknown_field_and_an_unknown_generation(tmp_path):
    with pytest.raises(SpecError, match="unknown 'tittle'"):
        load_chip(write(tmp_path / "c.toml", chip() | {"tittle": "x"}))
    with pytest.raises(SpecError, match=r"generation in .* is 'hoper': give hopper"):
        load_chip(write(tmp_path / "c.toml", chip() | {"generation": "hoper"}))


values = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.integers())


@given(st.sampled_from(["value", "unit", "source", "confidence", "note", "other"]), values)
def test_any_entry_is_read_or_refused(field, value):
    entry = {"hbm": fact(100, "GB") | {field: value}}
    hbm_bytes, refusal = 1.0, SpecError("c.toml, [facts", hint="none")
    try:
        hbm_bytes = chip_of(Table(chip(**entry), "c.toml")).hbm_bytes
    except SpecError as error:
        refusal = error
    assert hbm_bytes > 0
    assert "c.toml, [facts" in refusal.what
    assert refusal.hint
