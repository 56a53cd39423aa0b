"""From a log of events and commands to TTFT, TPOT, ITL and goodput."""

from rackscale.measure.distribution import Distribution, distribution
from rackscale.measure.log import LogRecords, read_log
from rackscale.measure.measurement import Counts, Measurement, measure
from rackscale.measure.point import point
from rackscale.measure.record import Outcome, RequestRecord
from rackscale.measure.slo import Slo

__all__ = [
    "Counts",
    "Distribution",
    "LogRecords",
    "Measurement",
    "Outcome",
    "RequestRecord",
    "Slo",
    "distribution",
    "measure",
    "point",
    "read_log",
]
