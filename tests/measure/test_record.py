import pytest

from rackscale.measure import Outcome, RequestRecord, Slo


def record(*times, arrived=1.0, outcome=Outcome.FINISHED):
    return RequestRecord(
        id="a",
        outcome=outcome,
        arrived_s=arrived,
        ended_s=None if outcome is Outcome.LOST else times[-1] if times else arrived,
        token_times_s=times,
        num_prompt=3,
        num_cached=0,
    )


def test_latencies_of_a_request():
    one = record(1.5, 1.7, 2.5)
    assert one.num_output == 3
    assert one.ttft_s == 0.5
    assert one.tpot_s == 0.5
    assert one.gaps_s == pytest.approx((0.2, 0.8))


def test_a_single_token_has_no_time_per_token():
    assert record(1.5).ttft_s == 0.5
    assert record(1.5).tpot_s is None
    assert record(1.5).gaps_s == ()


def test_without_a_token_there_is_no_latency():
    assert record().ttft_s is None
    assert record().tpot_s is None


@pytest.mark.parametrize(
    ("slo", "met"),
    [
        (Slo(), True),
        (Slo(ttft_s=0.5), True),
        (Slo(ttft_s=0.4), False),
        (Slo(tpot_s=0.25), True),
        (Slo(tpot_s=0.2), False),
        (Slo(ttft_s=0.4, tpot_s=0.25), False),
    ],
)
def test_a_promise_is_kept_or_not(slo, met):
    assert slo.met_by(record(1.5, 1.75)) is met


def test_who_has_no_second_token_has_no_pace_to_miss():
    assert Slo(tpot_s=0.0).met_by(record(1.5))


@pytest.mark.parametrize("outcome", [Outcome.CANCELLED, Outcome.LOST, Outcome.REFUSED])
def test_only_what_finished_meets_a_promise(outcome):
    assert not Slo().met_by(record(1.5, outcome=outcome))
