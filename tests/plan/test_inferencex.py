"""Rows of InferenceX: what is read, what is refused, what a row's columns mean."""

import csv
from pathlib import Path

import numpy as np
import pytest

from rackscale.core import SpecError
from rackscale.plan.inferencex import read_rows

DATA = Path(__file__).parents[2] / "src" / "rackscale" / "plan" / "data" / "inferencex_dsr1.csv"
ROW = {
    "hardware": "h200",
    "framework": "sglang",
    "model": "dsr1",
    "precision": "fp8",
    "spec_method": "none",
    "disagg": "False",
    "is_multinode": "False",
    "prefill_tp": "8",
    "prefill_ep": "1",
    "prefill_dp_attention": "False",
    "prefill_num_workers": "0",
    "decode_tp": "8",
    "decode_ep": "1",
    "decode_dp_attention": "False",
    "decode_num_workers": "0",
    "num_prefill_gpu": "64",
    "num_decode_gpu": "64",
    "isl": "1024",
    "osl": "1024",
    "conc": "16",
    "date": "2026-03-01",
    "tput_per_gpu": "100",
    "median_tpot": "0.01",
    "median_ttft": "0.2",
    "suspect": "",
}
POOLS = {
    **ROW,
    "framework": "dynamo-trt",
    "disagg": "True",
    "is_multinode": "True",
    "prefill_num_workers": "2",
    "decode_num_workers": "1",
    "num_prefill_gpu": "8",
    "num_decode_gpu": "16",
    "prefill_tp": "4",
    "prefill_ep": "4",
    "decode_tp": "16",
    "decode_ep": "16",
    "decode_dp_attention": "True",
    "hardware": "gb200",
    "precision": "fp4",
}


def written(tmp_path, *rows):
    path = tmp_path / "rows.csv"
    with path.open("w", newline="") as file:
        table = csv.DictWriter(file, fieldnames=list(ROW))
        table.writeheader()
        table.writerows(rows)
    return path


def only_case(tmp_path, row):
    ((_, case),) = read_rows(written(tmp_path, row)).cases()
    return case


def test_one_node_has_the_chips_that_its_ranks_say(tmp_path):
    case = only_case(tmp_path, ROW)
    assert case.chips.tolist() == [8.0]
    assert (case.decode.layouts.tp[0], case.decode.layouts.ep[0]) == (8, 1)
    assert case.isl[0] == pytest.approx(0.9 * 1024)
    assert not case.disaggregated[0]


def test_pools_have_groups_of_their_own(tmp_path):
    case = only_case(tmp_path, POOLS)
    assert case.chips.tolist() == [24.0]
    assert (case.prefill_groups[0], case.prefill.layouts.ranks[0], case.prefill.layouts.tp[0]) == (2, 4, 4)
    assert (case.decode_groups[0], case.decode.layouts.ranks[0], case.decode.layouts.tp[0]) == (1, 16, 1)
    assert case.decode.layouts.ep[0] == 16
    assert case.decode.precision.expert_bytes[0] == 0.5625
    assert case.decode.precision.linear_bytes[0] == 2.0


@pytest.mark.parametrize(("ranks", "tp", "ep"), [(4, 4, 1), (32, 1, 32)])
def test_a_layout_that_is_not_told_is_guessed_by_its_width(tmp_path, ranks, tp, ep):
    untold = {"decode_tp": "1", "decode_ep": "1", "num_decode_gpu": str(ranks)}
    layouts = only_case(tmp_path, {**POOLS, **untold}).decode.layouts
    assert (layouts.ranks[0], layouts.tp[0], layouts.ep[0]) == (ranks, tp, ep)


def test_pools_that_are_not_counted_are_one_wide_group(tmp_path):
    lost = {"prefill_num_workers": "0", "decode_num_workers": "0", "num_decode_gpu": "72"}
    case = only_case(tmp_path, {**POOLS, **lost})
    assert case.chips.tolist() == [72.0]
    assert case.decode.layouts.ep.tolist() == [72.0]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"hardware": "abacus"}, "unknown hardware abacus"),
        ({"model": "gpt2"}, "unknown model gpt2"),
        ({"precision": "ternary"}, "unknown precision ternary"),
        ({"conc": "0"}, "no lengths, concurrency, layout or number of chips"),
        ({"isl": "long"}, "no lengths, concurrency, layout or number of chips"),
        ({"decode_tp": "?"}, "no lengths, concurrency, layout or number of chips"),
        ({**POOLS, "num_prefill_gpu": "0"}, "no lengths, concurrency, layout or number of chips"),
        ({"median_ttft": "", "median_tpot": "0", "tput_per_gpu": ""}, "no measured speeds"),
        ({"date": "yesterday"}, "no date"),
        ({"suspect": "degraded run, exclude"}, "flagged as a degraded run"),
    ],
)
def test_rows_that_cannot_be_predicted_are_counted_by_reason(tmp_path, change, reason):
    rows = read_rows(written(tmp_path, ROW, {**ROW, **change}))
    assert len(rows.rows) == 1
    assert rows.skipped == {reason: 1}


def test_models_are_predicted_apart(tmp_path):
    rows = read_rows(written(tmp_path, ROW, {**ROW, "model": "kimik2.5", "precision": "int4"}, ROW))
    assert [numbers.tolist() for numbers, _ in rows.cases()] == [[0, 2], [1]]
    assert rows.configurations().tolist() == [0, 1, 0]


@pytest.mark.parametrize("hardware", ["gb300", "b300", "mi355x", "mi325x", "h100"])
def test_other_systems_are_known_by_their_short_names(tmp_path, hardware):
    case = only_case(tmp_path, {**ROW, "hardware": hardware})
    assert case.decode.chips.hbm_bytes[0] > 0


def test_engines_that_were_never_fitted_have_no_recipe(tmp_path):
    case = only_case(tmp_path, {**ROW, "framework": "vllm"})
    assert (case.engine[0], case.decode.recipe[0]) == (-1, -1)


def test_a_file_of_something_else_is_refused(tmp_path):
    path = tmp_path / "other.csv"
    path.write_text("a,b\n1,2\n")
    with pytest.raises(SpecError, match="has no column conc"):
        read_rows(path)
    with pytest.raises(SpecError, match="cannot be read"):
        read_rows(tmp_path / "missing.csv")


def test_the_whole_data_set_is_read_but_for_degraded_runs():
    rows = read_rows(DATA)
    assert len(rows.rows) == 653
    assert rows.skipped == {"flagged as a degraded run": 3}
    assert all(np.isfinite(values).all() for values in rows.truth.values())
