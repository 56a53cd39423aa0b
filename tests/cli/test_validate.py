"""`rackscale validate`: tables, JSON, and how it says no."""

import csv
import json
from pathlib import Path

import pytest

from rackscale.cli.app import main

DATA = Path(__file__).parents[2] / "src" / "rackscale" / "plan" / "data"


def run(capsys, *words):
    code = main(["validate", *map(str, words)])
    return code, *capsys.readouterr()


@pytest.fixture
def few(tmp_path):
    """Some rows of several configurations."""
    with (DATA / "inferencex_dsr1.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    path = tmp_path / "few.csv"
    with path.open("w", newline="") as file:
        table = csv.DictWriter(file, fieldnames=list(rows[0]))
        table.writeheader()
        table.writerows(rows[::30])
        table.writerow({**rows[0], "hardware": "abacus"})
    return path


def test_json_has_what_scripts_read(capsys, few):
    code, out, _ = run(capsys, few, "--json")
    found = json.loads(out)
    assert code == 0
    assert found["rows"] == found["predicted"] + 1
    assert found["skipped"] == {"unknown hardware abacus": 1}
    assert {"n", "tpot_mape", "ttft_mape", "tpot_median_ape", "bias", "inside_interval90"} <= set(
        found["error"]["all"]
    )


def test_text_says_what_was_skipped_and_why(capsys, few):
    code, out, _ = run(capsys, few)
    assert code == 0
    assert "22 of 23 rows predicted" in out
    assert "skipped: 1 of unknown hardware abacus" in out
    assert "those of the fit" not in out


def test_a_fit_s_own_rows_are_said_to_be(capsys):
    code, out, _ = run(capsys, DATA / "inferencex_dsr1.csv")
    assert code == 0
    assert "These rows are those of the fit" in out


def test_rows_are_predicted_by_fits_without_them(capsys, few):
    code, out, _ = run(capsys, few, "--cross-validate", "--json")
    found = json.loads(out)
    assert code == 0
    assert found["cross_validated"]
    assert 0 < found["error"]["all"]["tpot_mape"] < 1


def test_collectives_have_a_table_of_their_own(capsys):
    code, out, _ = run(capsys, DATA / "collectives.csv", "--kind", "collectives")
    assert code == 0
    assert "NVLinkOneSided" in out
    code, out, _ = run(capsys, DATA / "collectives.csv", "--kind", "collectives", "--json")
    assert json.loads(out)["error"]["all"]["mape"] < 0.15


@pytest.mark.parametrize(
    "words", [["no/such.csv"], [DATA / "nccl.csv"], [DATA / "nccl.csv", "--kind", "collectives"]]
)
def test_what_is_no_such_file_is_one_line(capsys, words):
    code, out, err = run(capsys, *words)
    assert (code, out) == (2, "")
    assert err.startswith("rackscale: ")
    assert err.count("\n") == 1
