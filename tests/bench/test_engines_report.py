import importlib
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).parents[2] / "bench"


@pytest.fixture
def ratios(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCH))
    yield importlib.import_module("engines_report").ratios
    del sys.modules["engines_report"]


def visit(engine, run, number, rate, kind="decode", size="1"):
    rates = {"decode": {}, "prefill": {}}
    rates[kind] = {size: rate}
    return {"engine": engine, "run": run, "round": number, "threads": 2, **rates}


def test_a_ratio_is_the_median_over_rounds_of_both(ratios):
    visits = [visit("rackscale", 1, at, rate) for at, rate in enumerate((30.0, 60.0, 20.0))]
    visits += [visit("llama.cpp q4_0", 1, at, rate) for at, rate in enumerate((10.0, 30.0, 20.0))]
    (ratio,) = ratios(visits)
    assert (ratio["reached"], ratio["target"], ratio["same_run"]) == (2.0, 1.2, True)


def test_only_rounds_with_both_count(ratios):
    visits = [visit("rackscale", 1, 0, 30.0), visit("rackscale", 1, 1, 90.0), visit("vllm", 1, 0, 10.0)]
    (ratio,) = ratios(visits)
    assert ratio["by_round"] == [3.0]


def test_different_runs_are_compared_by_medians_and_marked(ratios):
    visits = [visit("rackscale", 2, 0, 30.0), visit("vllm", 1, 0, 10.0)]
    (ratio,) = ratios(visits)
    assert (ratio["reached"], ratio["same_run"]) == (3.0, False)


def test_prefill_is_held_against_the_best_format_of_each_round(ratios):
    visits = [visit("rackscale", 1, 0, 60.0, "prefill", "512")]
    visits += [
        visit(f"llama.cpp {name}", 1, 0, rate, "prefill", "512") for name, rate in (("a", 20.0), ("b", 30.0))
    ]
    (ratio,) = ratios(visits)
    assert ratio["reached"] == 2.0
