"""The yardstick sees a row's columns and nothing of the rows that it is asked about."""

import hashlib
import sys
from pathlib import Path

import numpy as np
import pytest

from rackscale.core import SpecError
from rackscale.plan.fit import yardstick
from rackscale.plan.inferencex import Rows, read_rows

DATA = Path(__file__).parents[3] / "src" / "rackscale" / "plan" / "data" / "inferencex_dsr1.csv"


@pytest.fixture(scope="module")
def rows():
    return read_rows(DATA)


@pytest.fixture
def needs_sklearn():
    pytest.importorskip("sklearn", reason="scikit-learn comes with the extra `fit`")


def few(rows, count=120):
    chosen = slice(None, None, len(rows.rows) // count)
    return Rows(
        rows=rows.rows[chosen],
        skipped={},
        truth={name: values[chosen] for name, values in rows.truth.items()},
    )


def test_columns_are_numbers_of_the_configuration_and_no_result(rows):
    columns = yardstick.columns(rows)
    assert columns.shape == (len(rows.rows), len(yardstick.CATEGORIES) + len(yardstick.NUMBERS) + 1)
    other = Rows(
        rows=[{**row, "tput_per_gpu": "1", "median_tpot": "1", "median_ttft": "1"} for row in rows.rows],
        skipped={},
        truth={},
    )
    np.testing.assert_array_equal(columns, yardstick.columns(other))


@pytest.mark.usefixtures("needs_sklearn")
def test_rows_left_out_are_predicted_by_a_fit_without_them(rows):
    some = few(rows)
    mask = np.arange(len(some.rows)) % 4 == 0
    before = yardstick.predicted(some, [mask])
    assert (np.isnan(before["tpot"]) == ~mask).all()
    changed = {name: np.where(mask, 1e3 * values, values) for name, values in some.truth.items()}
    after = yardstick.predicted(Rows(rows=some.rows, skipped={}, truth=changed), [mask])
    np.testing.assert_array_equal(before["tpot"][mask], after["tpot"][mask])


@pytest.mark.usefixtures("needs_sklearn")
def test_it_learns_from_the_other_rows(rows):
    some = few(rows)
    mask = np.arange(len(some.rows)) % 4 == 0
    found = yardstick.predicted(some, [mask])["tpot"][mask]
    truth = np.log(some.truth["tpot"])
    guess = np.median(truth[~mask])
    assert np.abs(found - truth[mask]).mean() < 0.7 * np.abs(guess - truth[mask]).mean()


def test_the_report_has_the_schemes_of_the_fit_by_regime(rows, monkeypatch):
    some = few(rows)
    monkeypatch.setattr(yardstick, "predicted", _truths_where_left_out)
    report = yardstick.report(some)
    assert "without configurations, one node" in report
    assert "without system h200, several nodes" in report
    assert report["without configurations, several nodes"]["tpot_mape"] == pytest.approx(0)
    left = sum(numbers["rows"] for name, numbers in report.items() if name.startswith("without conf"))
    assert left == len(some.rows)


def _truths_where_left_out(rows, masks):
    left = np.logical_or.reduce(masks)
    return {name: np.where(left, np.log(values), np.nan) for name, values in rows.truth.items()}


def test_the_fits_own_errors_are_shown_only_beside_the_rows_of_the_fit(tmp_path):
    source, fitted = tmp_path / "rows.csv", tmp_path / "fit.toml"
    source.write_text("a,b\n", encoding="utf-8")
    assert yardstick.physical_report(source, fitted) == {}
    digest = hashlib.sha256(source.read_bytes()).hexdigest()
    fitted.write_text(
        f'[report]\nsha256 = "{digest}"\n[report.errors."without x, one node"]\ntpot_mape = 0.1\n',
        encoding="utf-8",
    )
    assert yardstick.physical_report(source, fitted) == {"without x, one node": {"tpot_mape": 0.1}}
    source.write_text("a,c\n", encoding="utf-8")
    assert yardstick.physical_report(source, fitted) == {}


def test_the_table_has_both_side_by_side():
    numbers = {"rows": 3.0}
    numbers |= {f"{name}_{kind}": 0.25 for name in yardstick.SHOWN for kind in ("mape", "median_ape")}
    table = yardstick.table_of({"without x": numbers, "without y": numbers}, {"without x": numbers})
    cells = [list(column.cells) for column in table.columns]
    assert cells[2:4] == [["25.0% (25.0%)"] * 2, ["25.0% (25.0%)", "-"]]


def test_without_scikit_learn_it_says_what_to_install(rows, monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.ensemble", None)
    with pytest.raises(SpecError, match="scikit-learn is not installed"):
        yardstick.predicted(few(rows), [])
