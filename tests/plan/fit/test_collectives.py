"""The fit of collectives: that it repeats, and that it predicts widths that it has not seen."""

import tomllib
from datetime import date
from importlib import resources
from pathlib import Path

import numpy as np
import pytest

import rackscale.plan.fit.collectives as fitting
from rackscale.cost.collectives.coefficients import fitted_file
from rackscale.plan.collective_rows import read_collectives
from rackscale.plan.fit.collectives import Problem, fit

DATA = Path(str(resources.files("rackscale.plan") / "data" / "collectives.csv"))


@pytest.fixture(scope="module")
def problem():
    return Problem(read_collectives(DATA).rows)


@pytest.fixture(scope="module")
def best(problem):
    known = fitted_file()["parameters"]
    return np.array([np.log(known[name]["value"]) if name in known else 0.0 for name in problem.names])


def test_the_committed_values_are_those_of_the_data(problem, best):
    again = problem.fit(np.ones(len(problem.rows)), best)
    assert np.abs(np.expm1(problem.errors(again))).mean() == pytest.approx(
        fitted_file()["report"]["error"]["all"]["mape"], abs=0.003
    )


@pytest.mark.parametrize(("ranks", "margin"), [(2, 0.13), (32, 0.13)])
def test_a_width_that_was_left_out(problem, best, ranks, margin):
    out = np.array([row.ranks == ranks for row in problem.rows])
    logs = problem.fit((~out).astype(float), fitting._start(problem, best, out))
    assert np.abs(np.expm1(problem.errors(logs)[out])).mean() < margin


def test_the_report_keeps_its_promise():
    left_out = fitted_file()["report"]["left_out"]
    assert left_out["all"]["mape"] < 0.15
    assert all(left_out[f"EP {ranks}"]["mape"] < 0.15 for ranks in (2, 8, 16, 32, 128, 256))


def test_main_writes_what_the_cost_model_reads(tmp_path, monkeypatch, capsys):
    few = tmp_path / "few.csv"
    lines = DATA.read_text().splitlines()
    chosen = [line for line in lines[1:] if ",NVLinkOneSided," in line or ",low_latency,V1" in line]
    few.write_text("\n".join([lines[0], *chosen]) + "\n")
    monkeypatch.setattr(fitting, "NUM_RESAMPLED", 2)
    fitting.main([str(few), "--out", str(tmp_path / "out.toml")])
    written = tomllib.loads((tmp_path / "out.toml").read_text())
    assert set(written) == set(fitted_file())
    assert written["report"]["rows"] == 70
    assert "EP 2 left out" in capsys.readouterr().err
    entry = written["parameters"]["one_sided.dispatch.latency_s"]
    assert entry.keys() == {"value", "spread", "prior", "what", "source"}


def test_the_same_data_give_the_same_file(tmp_path, monkeypatch):
    few = tmp_path / "few.csv"
    lines = DATA.read_text().splitlines()
    few.write_text("\n".join([lines[0], *[line for line in lines[1:] if ",low_latency," in line]]) + "\n")
    monkeypatch.setattr(fitting, "NUM_RESAMPLED", 2)
    texts = [fit(few, date(2026, 11, 24), print) for _ in range(2)]
    assert texts[0] == texts[1]
