"""A fixed number of requests: Little's law, limits, and how speeds must move."""

import csv
import dataclasses

import numpy as np
import pytest
from test_inferencex import POOLS, ROW

from rackscale.cost import Parameters, from_priors
from rackscale.plan.closed_loop import closed_loop
from rackscale.plan.inferencex import read_rows

PRIORS = from_priors()


def case_of(tmp_path, *rows):
    path = tmp_path / "rows.csv"
    with path.open("w", newline="") as file:
        table = csv.DictWriter(file, fieldnames=list(ROW))
        table.writeheader()
        table.writerows(rows)
    ((_, case),) = read_rows(path).cases()
    return case


def changed(parameters, **values):
    logs = parameters.moved.copy()
    for name, value in values.items():
        logs[:, parameters.names.index(name)] = np.log(value)
    return Parameters(names=parameters.names, moved=logs)


def test_more_requests_are_slower_each_and_more_together(tmp_path):
    rows = [{**ROW, "conc": str(conc)} for conc in (1, 4, 16, 64, 256)]
    loop = closed_loop(case_of(tmp_path, *rows), PRIORS)
    assert (np.diff(loop.tpot_s[0]) > 0).all()
    assert (np.diff(loop.tokens_per_s_per_chip[0]) > 0).all()


def test_rate_is_concurrency_over_a_request_s_time(tmp_path):
    case = case_of(tmp_path, {**ROW, "conc": "1"})
    loop = closed_loop(case, changed(PRIORS, ramp=1.0))
    request = loop.ttft_s + case.osl * loop.tpot_s
    tokens = case.isl + case.osl
    assert loop.tokens_per_s_per_chip == pytest.approx(tokens / request / 8, rel=0.02)


def test_what_has_no_room_waits_to_be_admitted(tmp_path):
    long = {**ROW, "isl": "8192", "osl": "1024"}
    case = case_of(tmp_path, {**long, "conc": "64"}, {**long, "conc": "1024"})
    loop = closed_loop(case, PRIORS)
    assert loop.fits[0, 0] < 1024 if loop.fits.ndim == 2 else loop.fits[0] < 1024
    assert loop.ttft_s[0, 1] > 10 * loop.ttft_s[0, 0]
    assert loop.sequences[0, 1] <= np.max(loop.fits) + 1e-6


def test_more_prefill_ranks_shorten_a_queue_of_prompts(tmp_path):
    few = {**POOLS, "conc": "2048", "isl": "8192"}
    many = {**few, "prefill_num_workers": "8", "num_prefill_gpu": "32"}
    loop = closed_loop(case_of(tmp_path, few, many), PRIORS)
    assert loop.ttft_s[0, 1] < loop.ttft_s[0, 0] / 2
    assert loop.utilisation[0, 1] <= loop.utilisation[0, 0]


def test_prompts_do_not_stall_answers_of_other_ranks(tmp_path):
    """Disaggregation, all else alike: a longer prompt leaves the time per token almost as it was."""
    pools = [{**POOLS, "conc": "64", "isl": isl} for isl in ("1024", "8192")]
    mixed = [{**ROW, "conc": "64", "isl": isl} for isl in ("1024", "8192")]
    apart = closed_loop(case_of(tmp_path, *pools), PRIORS).tpot_s[0]
    together = closed_loop(case_of(tmp_path, *mixed), PRIORS).tpot_s[0]
    assert apart[1] / apart[0] < 1.3
    assert together[1] / together[0] > 1.3


def test_what_the_host_remembers_is_not_computed_again(tmp_path):
    case = case_of(tmp_path, {**POOLS, "isl": "8192", "conc": "512"})
    known = dataclasses.replace(case, cached=0.8 * case.isl)
    cold, warm = closed_loop(case, PRIORS), closed_loop(known, PRIORS)
    assert warm.ttft_s < cold.ttft_s
    assert warm.prompt_s < cold.prompt_s / 2


def test_drafts_that_are_accepted_shorten_the_time_per_token(tmp_path):
    case = case_of(tmp_path, {**ROW, "spec_method": "mtp", "conc": "4"})
    few, many = (closed_loop(case, changed(PRIORS, accepted_drafts=accepted)) for accepted in (0.2, 1.5))
    assert many.tpot_s < few.tpot_s


def test_engines_become_faster(tmp_path):
    case = case_of(tmp_path, {**ROW, "date": "2025-12-01"}, {**ROW, "date": "2026-06-01"})
    loop = closed_loop(case, PRIORS)
    assert loop.tpot_s[0, 1] < loop.tpot_s[0, 0]


def test_kernels_compiled_in_a_run_cost_throughput_alone(tmp_path):
    case = case_of(tmp_path, {**ROW, "hardware": "b200", "date": "2025-12-01", "conc": "4"})
    assert case.stalls.all()
    calm = dataclasses.replace(case, stalls=np.array([False]))
    stalled, free = closed_loop(case, PRIORS), closed_loop(calm, PRIORS)
    assert stalled.tokens_per_s_per_chip < free.tokens_per_s_per_chip
    assert stalled.tpot_s == free.tpot_s


def test_iterations_have_settled(tmp_path):
    rows = [{**ROW, "conc": str(conc)} for conc in (1, 64, 512)]
    case = case_of(tmp_path, *rows)
    usual, long = closed_loop(case, PRIORS), closed_loop(case, PRIORS, iterations=200)
    assert usual.tpot_s == pytest.approx(long.tpot_s, rel=0.03)
    assert usual.tokens_per_s_per_chip == pytest.approx(long.tokens_per_s_per_chip, rel=0.03)
