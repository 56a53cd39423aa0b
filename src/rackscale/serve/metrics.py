"""The engine's metrics, in Prometheus' format.

Gauges are those of the engine's last snapshot; counters and histograms are kept here.
"""

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from rackscale.core import Finish, Refuse, RequestId, Seconds
from rackscale.engine import EngineStats

TTFT_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
TPOT_BUCKETS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1)


class _EngineGauges(Collector):
    """Of the engine's last snapshot."""

    def __init__(self) -> None:
        self.stats = EngineStats(groups=())
        self.num_engine_restarts = 0
        self.num_group_restarts = 0

    def collect(self) -> Iterable[Metric]:
        stats = self.stats.groups
        for name, what, value in (
            ("requests_waiting", "Accepted requests without a row.", sum(g.num_waiting for g in stats)),
            ("requests_running", "Requests with a row.", sum(g.num_running for g in stats)),
            ("kv_blocks", "KV blocks in all.", sum(g.num_blocks for g in stats)),
            ("kv_blocks_used", "KV blocks that requests own.", sum(g.num_owned_blocks for g in stats)),
            ("preemptions_total", "Requests preempted.", sum(g.num_preempted for g in stats)),
            (
                "prefix_queried_tokens_total",
                "Tokens looked up in the prefix cache.",
                sum(g.num_queried_tokens for g in stats),
            ),
            (
                "prefix_hit_tokens_total",
                "Tokens found in the prefix cache.",
                sum(g.num_hit_tokens for g in stats),
            ),
            ("engine_restarts_total", "Engines that were replaced.", self.num_engine_restarts),
            ("group_restarts_total", "Groups that were started again.", self.num_group_restarts),
        ):
            yield GaugeMetricFamily(f"rackscale_{name}", what, value=value)


class Metrics:
    """Of a server, over all its engines' lives."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._gauges = _EngineGauges()
        self.registry.register(self._gauges)
        self._ttft = self._histogram("ttft_seconds", "Arrival to first token.", TTFT_BUCKETS_S)
        self._tpot = self._histogram(
            "tpot_seconds", "Mean time per output token after the first.", TPOT_BUCKETS_S
        )
        self._prompt = self._counter("prompt_tokens", "Prompt tokens of ended requests.")
        self._output = self._counter("output_tokens", "Tokens sampled for requests.")
        self._ended = Counter(
            "rackscale_requests_ended", "Requests by how they ended.", ["reason"], registry=self.registry
        )
        self._arrived: dict[RequestId, Seconds] = {}
        self._first: dict[RequestId, Seconds] = {}

    def _histogram(self, name: str, what: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(f"rackscale_{name}", what, buckets=buckets, registry=self.registry)

    def _counter(self, name: str, what: str) -> Counter:
        return Counter(f"rackscale_{name}", what, registry=self.registry)

    def snapshot(self, stats: EngineStats, num_group_restarts: int) -> None:
        """How it looks at the engine."""
        self._gauges.stats = stats
        self._gauges.num_group_restarts = num_group_restarts

    def engine_restarted(self) -> None:
        """Another engine took over."""
        self._gauges.num_engine_restarts += 1

    def arrived(self, request: RequestId, now: Seconds) -> None:
        """A request was handed to the engine."""
        self._arrived[request] = now

    def token(self, request: RequestId, now: Seconds) -> None:
        """A request got a token."""
        self._output.inc()
        if request not in self._first:
            self._first[request] = now
            self._ttft.observe(now - self._arrived[request])

    def finished(self, finish: Finish, now: Seconds) -> None:
        """A request ended."""
        self._ended.labels(finish.reason.value).inc()
        self._prompt.inc(finish.num_prompt)
        first = self._first.pop(finish.request, None)
        self._arrived.pop(finish.request, None)
        if first is not None and finish.num_output > 1:
            self._tpot.observe((now - first) / (finish.num_output - 1))

    def cancelled(self, request: RequestId) -> None:
        """A client went while no engine was there to say so."""
        self._ended.labels("cancelled").inc()
        self._first.pop(request, None)
        self._arrived.pop(request, None)

    def refused(self, refuse: Refuse) -> None:
        """A request was not taken."""
        self._ended.labels(f"refused_{refuse.reason.value}").inc()
        self._arrived.pop(refuse.request, None)

    def text(self) -> bytes:
        """All of it, as Prometheus scrapes it."""
        return generate_latest(self.registry)
