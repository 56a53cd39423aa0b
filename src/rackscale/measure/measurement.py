"""Many requests' records in the words of the field."""

from collections.abc import Sequence
from dataclasses import dataclass

from rackscale.measure.distribution import Distribution, distribution
from rackscale.measure.record import Outcome, RequestRecord
from rackscale.measure.slo import Slo


@dataclass(frozen=True, kw_only=True, slots=True)
class Counts:
    """Requests: arrived is the sum of the others."""

    arrived: int
    finished: int
    refused: int
    cancelled: int
    lost: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Measurement:
    """Latencies are of finished requests, tokens of all that were served.

    duration_s: from the first arrival to the last token or end. input tokens: the prompts of requests
    that got a token. concurrency: requests in the system, averaged over the duration. Rates are per
    second of the duration, and None where it is zero. goodput_rps: requests that met the SLO; None
    without one.
    """

    counts: Counts
    duration_s: float
    ttft_s: Distribution | None
    tpot_s: Distribution | None
    itl_s: Distribution | None
    num_input_tokens: int
    num_cached_tokens: int
    num_output_tokens: int
    concurrency: float | None
    requests_per_s: float | None
    input_tokens_per_s: float | None
    output_tokens_per_s: float | None
    goodput_rps: float | None


def measure(records: Sequence[RequestRecord], *, slo: Slo | None = None) -> Measurement:
    """Measure requests that were served together."""
    finished = [record for record in records if record.outcome is Outcome.FINISHED]
    served = [record for record in records if record.token_times_s]
    duration_s, resident_s = _times(records)

    def rate(amount: float) -> float | None:
        return amount / duration_s if duration_s > 0 else None

    num_input = sum(record.num_prompt for record in served)
    num_output = sum(record.num_output for record in served)
    return Measurement(
        counts=_counts(records),
        duration_s=duration_s,
        ttft_s=distribution(record.ttft_s for record in finished if record.ttft_s is not None),
        tpot_s=distribution(record.tpot_s for record in finished if record.tpot_s is not None),
        itl_s=distribution(gap for record in finished for gap in record.gaps_s),
        num_input_tokens=num_input,
        num_cached_tokens=sum(record.num_cached for record in served),
        num_output_tokens=num_output,
        concurrency=rate(resident_s),
        requests_per_s=rate(len(finished)),
        input_tokens_per_s=rate(num_input),
        output_tokens_per_s=rate(num_output),
        goodput_rps=None if slo is None else rate(sum(map(slo.met_by, records))),
    )


def _counts(records: Sequence[RequestRecord]) -> Counts:
    def count(outcome: Outcome) -> int:
        return sum(record.outcome is outcome for record in records)

    return Counts(
        arrived=len(records),
        finished=count(Outcome.FINISHED),
        refused=count(Outcome.REFUSED),
        cancelled=count(Outcome.CANCELLED),
        lost=count(Outcome.LOST),
    )


def _times(records: Sequence[RequestRecord]) -> tuple[float, float]:
    """Seconds from the first arrival to the last that happened, and all requests' stays added up. A
    lost request stays to the end."""
    if not records:
        return 0.0, 0.0
    start_s = min(record.arrived_s for record in records)
    end_s = max(
        max((record.arrived_s, *record.token_times_s[-1:]) if record.ended_s is None else (record.ended_s,))
        for record in records
    )
    stays_s = ((end_s if record.ended_s is None else record.ended_s) - record.arrived_s for record in records)
    return end_s - start_s, sum(stays_s)
