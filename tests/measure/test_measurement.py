import pytest

from rackscale.measure import Counts, Outcome, RequestRecord, Slo, measure


def record(name, arrived, *times, ended=None, outcome=Outcome.FINISHED, cached=0):
    return RequestRecord(
        id=name,
        outcome=outcome,
        arrived_s=arrived,
        ended_s=ended,
        token_times_s=times,
        num_prompt=10,
        num_cached=cached,
    )


# Two requests over ten seconds; the second was there for half of it.
TWO = (
    record("a", 0.0, 1.0, 2.0, 4.0, ended=4.0, cached=8),
    record("b", 5.0, 7.0, 10.0, ended=10.0),
)


def test_rates_are_over_the_time_from_the_first_arrival_to_the_last_end():
    result = measure(TWO)
    assert result.duration_s == 10.0
    assert (result.num_input_tokens, result.num_cached_tokens, result.num_output_tokens) == (20, 8, 5)
    assert result.requests_per_s == 0.2
    assert result.input_tokens_per_s == 2.0
    assert result.output_tokens_per_s == 0.5
    assert result.concurrency == pytest.approx(0.9)


def test_latencies():
    result = measure(TWO)
    assert result.ttft_s.mean == 1.5
    assert (result.tpot_s.count, result.tpot_s.mean) == (2, 2.25)
    assert (result.itl_s.count, result.itl_s.mean) == (3, 2.0)


def test_goodput_counts_what_kept_its_promise():
    assert measure(TWO).goodput_rps is None
    assert measure(TWO, slo=Slo(ttft_s=1.0)).goodput_rps == 0.1
    assert measure(TWO, slo=Slo()).goodput_rps == 0.2


def test_every_request_is_counted_once_by_its_end():
    others = (
        record("c", 1.0, 2.0, ended=3.0, outcome=Outcome.CANCELLED),
        record("d", 1.0, ended=1.0, outcome=Outcome.REFUSED),
        record("e", 1.0, outcome=Outcome.LOST),
        record("f", 1.0, outcome=Outcome.LOST),
    )
    result = measure((*TWO, *others))
    assert result.counts == Counts(arrived=6, finished=2, refused=1, cancelled=1, lost=2)
    assert result.ttft_s.count == 2  # latencies are of what finished
    assert result.num_output_tokens == 6  # and tokens of all


def test_a_lost_request_stays_to_the_end():
    result = measure((TWO[0], record("e", 2.0, 3.0, 8.0, outcome=Outcome.LOST)))
    assert result.duration_s == 8.0
    assert result.concurrency == pytest.approx((4.0 + 6.0) / 8.0)


def test_nothing_measured():
    result = measure(())
    assert result.counts.arrived == 0
    assert result.duration_s == 0.0
    assert result.ttft_s is result.requests_per_s is result.concurrency is None
