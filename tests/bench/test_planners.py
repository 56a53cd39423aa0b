import importlib
import sys
from pathlib import Path

import numpy as np
import pytest

from rackscale.plan.inferencex import read_rows

ROOT = Path(__file__).parents[2]
DATA = ROOT / "src" / "rackscale" / "plan" / "data" / "inferencex_dsr1.csv"
LOADED = ("planners", "planners_report", "machine", "peers", "peers.cache", "peers.visit")


@pytest.fixture(scope="module")
def rows():
    return read_rows(DATA)


@pytest.fixture
def planners(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "bench"))
    yield importlib.import_module("planners")
    for name in LOADED:
        sys.modules.pop(name, None)


def test_every_row_becomes_a_record_whose_numbers_of_chips_agree(planners, rows):
    records = planners.records(rows)
    assert len(records) == len(rows.rows)
    for record in records:
        config, benchmark = record["config"], record["benchmark"]
        for pool in ("prefill", "decode"):
            chips, workers = config[f"num_{pool}_gpu"], config[f"{pool}_num_workers"]
            attentions = chips // workers if config[f"{pool}_dp_attention"] else 1
            assert config[f"{pool}_tp"] * attentions == chips // workers
            assert chips // workers % config[f"{pool}_ep"] == 0
        seats = config["decode_num_workers"] * attentions
        assert benchmark["conc"] % seats == 0


def test_a_row_of_one_node_has_the_chips_of_its_tp(planners, rows):
    number = next(
        at
        for at, row in enumerate(rows.rows)
        if row["disagg"] == "False" and row["num_decode_gpu"] == "64" and row["decode_tp"] == "8"
    )
    assert planners.records(rows)[number]["config"]["num_decode_gpu"] == 8


def test_a_sample_has_rows_of_all_kinds_and_is_the_same_each_time(planners, rows):
    chosen = planners.sample(rows, 60)
    assert chosen == planners.sample(rows, 60)
    assert len(set(chosen)) == 60
    hardware = rows.column("hardware")
    assert set(hardware[chosen]) == set(hardware)
    assert planners.sample(rows, None) == list(range(len(rows.rows)))


def test_errors_are_of_rows_that_a_planner_answers_and_of_those_that_all_do(planners, rows):
    chosen = [0, 1, 2]
    truth = [{name: rows.truth[name][number] for name in rows.truth} for number in chosen]
    double = [{name: 2 * value for name, value in answer.items()} for answer in truth]
    found = planners.table_of(rows, chosen, {"ours": double, "theirs": [*truth[:2], {"refused": "no"}]})
    ours, theirs = found["ours"]["all"], found["theirs"]["all"]
    assert (ours["answered"], theirs["answered"], theirs["rows"]) == (3, 2, 3)
    assert ours["own"]["tpot"] == pytest.approx({"n": 3, "mape": 1, "median": 1, "bias": 1})
    assert ours["common"]["tpot"]["n"] == 2
    assert theirs["common"]["tpot"]["mape"] == pytest.approx(0)


def test_reasons_that_differ_only_in_numbers_are_one(planners):
    answers = [{"refused": "no data for ep=8"}, {"refused": "no data for ep=48"}, {"tpot": 1.0}]
    assert planners.refused(answers) == {"no data for ep=N": 2}


def test_runs_of_the_same_record_are_asked_once_and_answers_are_kept(planners, tmp_path, monkeypatch):
    cache, asked = planners.Cache(tmp_path), []
    monkeypatch.setattr(cache, "environment", lambda *_: Path("python"))

    def visit(command):
        asked.append(planners.json.loads(Path(command[-1]).read_text(encoding="utf-8")))
        answers = [{"tpot": float(at), "cpu_s": 1.0 + at} for at in range(len(asked[-1]))]
        return {"answers": answers, "import_s": 1.0, "peak_mb": 2.0}

    monkeypatch.setattr(planners, "visit", visit)
    given = [{"a": 1}, {"a": 2}, {"a": 1}]
    for again in (False, False, True):
        found = planners.ask_aiconfigurator(cache, given, again=again)
        assert [answer["tpot"] for answer in found["answers"]] == [0.0, 1.0, 0.0]
        assert found["distinct"] == 2
    assert asked == [[{"a": 1}, {"a": 2}]] * 2
    timed = planners.time_aiconfigurator(cache, given)
    assert (timed["timed"], timed["row_cpu_s"], timed["mean_cpu_s"]) == (2, 1.5, 1.5)
    assert len(asked) == 3
    planners.ask_aiconfigurator(cache, [*given, {"a": 3}], again=False)
    assert asked[-1] == [{"a": 3}]


def test_predictions_are_lines_with_gaps_where_there_is_none(planners):
    answer = {"tpot": 0.0123456, "ttft": 1.0, "tokens_per_s_per_gpu": 500.0, "tpot_low": 0.01}
    text = planners.lines_of([3, 7], {"ours": [answer, answer], "theirs": [{"refused": "no"}, answer]})
    head, first, second = text.splitlines()
    assert head.split(",")[:2] == ["row", "ours tpot"]
    assert first == "3,0.01235,500,1,,,"
    assert second == "7,0.01235,500,1,0.01235,500,1"


def test_a_metric_that_no_row_has_is_no_error(planners):
    table = importlib.import_module("planners_report").errors(
        {name: np.array([1.0, np.nan]) for name in planners.METRICS},
        {name: np.array([np.nan, 1.0]) for name in planners.METRICS},
        np.array([True, True]),
    )
    assert table == {}
