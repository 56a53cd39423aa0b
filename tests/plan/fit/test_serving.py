"""The fit: what it leaves out, what it writes, and that it can be read again."""

import tomllib
from pathlib import Path

import numpy as np
import pytest

import rackscale.plan
from rackscale.cost.parameters import all_names
from rackscale.plan.fit import serving
from rackscale.plan.fit.serving import FOLDED, Problem, fit_rows, left_out, posterior, toml_text
from rackscale.plan.inferencex import Rows, read_rows

DATA = Path(rackscale.plan.__file__).parent / "data" / "inferencex_dsr1.csv"


@pytest.fixture(scope="module")
def rows():
    return read_rows(DATA)


def some(rows, step):
    kept = list(range(0, len(rows.rows), step))
    truth = {name: values[kept] for name, values in rows.truth.items()}
    return Rows(rows=[rows.rows[number] for number in kept], skipped={}, truth=truth)


def test_a_configuration_s_runs_are_left_out_together(rows):
    configurations, folds = rows.configurations(), left_out(rows)[FOLDED]
    assert np.sum(folds, 0).tolist() == [1] * len(rows.rows)
    for fold in folds:
        assert not set(configurations[fold]) & set(configurations[~fold])


def test_whole_systems_engines_and_widths_are_left_out(rows):
    schemes = left_out(rows)
    for scheme in ("system gb200", "engine trtllm", "EP 32", "several nodes"):
        assert any(mask.any() for mask in schemes[scheme])


def test_derivatives_by_one_pass_are_those_one_by_one(rows):
    few = some(rows, 40)
    problem = Problem(few)
    everything = np.ones(len(few.rows), dtype=bool)
    near = problem.centre + 1e-3 * np.eye(len(problem.centre))[:3]
    together = problem.residuals(near, problem.case, everything)
    for number, one in enumerate(near):
        assert problem.residuals(one[None], problem.case, everything)[0] == pytest.approx(together[number])


def test_a_fit_is_nearer_than_its_priors(rows):
    few = some(rows, 20)
    problem = Problem(few)
    everything = np.ones(len(few.rows), dtype=bool)
    best, precision = problem.fit(everything)

    def distance(moved):
        found = problem.predicted(moved, everything)["tpot"][0]
        return np.abs(found - problem.truth["tpot"]).mean()

    assert distance(best) < 0.7 * distance(problem.centre)
    assert posterior(best, precision).shape == (32, len(best))


def test_what_is_written_is_what_is_read(rows, monkeypatch):
    chosen = (FOLDED, "system h200", "system b200", "system gb200")
    monkeypatch.setattr(serving, "left_out", lambda rows: {name: left_out(rows)[name] for name in chosen})
    fit = fit_rows(some(rows, 45), lambda _: None)
    file = tomllib.loads(toml_text(fit, DATA))
    assert set(file["best"]) == set(file["draws"]) == set(all_names())
    assert file["best"]["host_step"] == pytest.approx(fit.best[all_names().index("host_step")], rel=1e-4)
    assert len(file["draws"]["host_step"]) == 32
    assert set(file["noise"]) == {"one node", "several nodes", "new system"}
    assert file["report"]["systems"] == ["b200", "gb200", "h200"]
