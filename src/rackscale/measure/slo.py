"""What a request was promised."""

from dataclasses import dataclass

from rackscale.measure.record import Outcome, RequestRecord


@dataclass(frozen=True, kw_only=True, slots=True)
class Slo:
    """Upper bounds, both included; None: any."""

    ttft_s: float | None = None
    tpot_s: float | None = None

    def met_by(self, record: RequestRecord) -> bool:
        """Whether the request finished in time. One without a second token has no TPOT to miss."""
        if record.outcome is not Outcome.FINISHED or record.ttft_s is None:
            return False
        in_time = self.ttft_s is None or record.ttft_s <= self.ttft_s
        fast = self.tpot_s is None or record.tpot_s is None or record.tpot_s <= self.tpot_s
        return in_time and fast
