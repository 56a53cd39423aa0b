"""Measured collectives against predictions."""

import csv
from importlib import resources
from pathlib import Path

import pytest

from rackscale.core import SpecError
from rackscale.plan.collective_rows import read_collectives
from rackscale.plan.validate_collectives import validate_collectives

DATA = Path(str(resources.files("rackscale.plan") / "data" / "collectives.csv"))
ROW = {
    "system": "GB200 NVL72",
    "kernel": "NVLinkTwoSided",
    "ep": "8",
    "tokens_per_rank": "128",
    "hidden": "7168",
    "topk": "8",
    "experts": "256",
    "dispatch_dtype": "bfloat16",
    "combine_dtype": "bfloat16",
    "prepare_us": "14",
    "dispatch_us": "35",
    "combine_us": "37",
}


def table_of(tmp_path, *rows):
    path = tmp_path / "rows.csv"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(ROW))
        writer.writeheader()
        writer.writerows({**ROW, **row} for row in rows)
    return path


def test_the_rows_of_the_fit_are_reproduced():
    found = validate_collectives(DATA)
    assert found.rows == 781
    assert found.predicted == 773
    assert sum(found.skipped.values()) == 8
    assert found.error["all"].mape < 0.06
    assert found.error["all"].inside_interval90 > 0.9
    assert abs(found.error["all"].bias) < 0.02
    for name in ("EP 2", "EP 8", "EP 16", "EP 32", "NVLinkOneSided", "HGX H200"):
        assert found.error[name].mape < 0.08


def test_each_row_that_is_skipped_has_a_reason(tmp_path):
    path = table_of(
        tmp_path,
        {},
        {"dispatch_us": "", "combine_us": "", "prepare_us": ""},
        {"tokens_per_rank": ""},
        {"tokens_per_rank": "many"},
        {"combine_dtype": "fp7"},
        {"system": "Cray-1"},
        {"kernel": "smoke signals"},
        {"ep": "144"},
    )
    found = validate_collectives(path)
    assert found.rows == 8
    assert found.predicted == 1
    assert found.skipped == {
        "bandwidth published, no time": 1,
        "tokens per rank not published": 1,
        "a number cannot be read": 1,
        "unknown format fp7": 1,
        "the catalog has no system 'cray-1'": 1,
        "unknown all-to-all 'smoke signals'": 1,
        "two_sided stays in a domain": 1,
    }


def test_only_phases_that_were_measured_are_compared(tmp_path):
    found = validate_collectives(table_of(tmp_path, {"prepare_us": "", "combine_us": ""}))
    assert found.error["all"].mape < 0.15
    assert found.error["all"].n == 1


def test_a_width_and_a_system_that_the_fit_never_saw(tmp_path):
    path = table_of(
        tmp_path,
        {"ep": "4"},
        {"ep": "64"},
        {"system": "GB300 NVL72"},
        {"system": "HGX B300", "kernel": "new_deepep_ll"},
        {"ep": "64", "system": "HGX H200", "kernel": "normal"},
    )
    assert validate_collectives(path).predicted == 5


def test_a_token_goes_to_four_boxes_at_most_in_deepeps_own_test(tmp_path):
    wide = {"system": "HGX H200", "kernel": "normal", "ep": "64"}
    (row,) = read_collectives(table_of(tmp_path, wide)).rows
    assert (row.exchange.groups, row.exchange.groups_per_token) == (8, 4)


def test_as_json(tmp_path):
    found = validate_collectives(table_of(tmp_path, {})).as_json()
    assert found["error"]["all"].keys() == {"n", "mape", "median_ape", "bias", "inside_interval90"}


def test_files_that_are_no_tables(tmp_path):
    with pytest.raises(SpecError, match="cannot be read"):
        validate_collectives(tmp_path / "none.csv")
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    with pytest.raises(SpecError, match="has no column system"):
        validate_collectives(tmp_path / "other.csv")
    with pytest.raises(SpecError, match="it is empty"):
        validate_collectives(table_of(tmp_path))
