"""Waiting and unevenness where requests come by themselves: what the 99th percentiles are made of.

Benchmarks hold a number of requests; users come at random. A closed loop gives medians, and these formulas
what the slowest of a hundred requests has to bear at the same rate of requests.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

NORMAL_99 = 2.326  # of a normal distribution's deviations 1 % lie above
POISSON_SCV = 1.0  # squared coefficient of variation of times between arrivals at random
MOST_BUSY = 0.999  # a queue beyond it has no steady state


@dataclass(frozen=True, kw_only=True, slots=True)
class Queue:
    """Requests at random times before equal servers. service_s: the mean. service_scv: squared coefficient of
    variation of service, that of prompts' lengths where service goes with length."""

    arrivals_per_s: float
    service_s: float
    servers: int
    service_scv: float = 0.0

    @property
    def busy(self) -> float:
        """Share of the servers' time, at most `MOST_BUSY`."""
        return min(self.arrivals_per_s * self.service_s / self.servers, MOST_BUSY)

    @property
    def mean_wait_s(self) -> float:
        """Allen and Cunneen's approximation of G/G/c: M/M/c's wait times (Ca^2 + Cs^2) / 2, exact for M/M/c
        and for M/G/1 (A. O. Allen, Probability, Statistics and Queueing Theory, 1990, 5.3.2)."""
        waits = erlang_c(self.busy * self.servers, self.servers)
        each = self.service_s / (self.servers * (1 - self.busy))
        return waits * each * (POISSON_SCV + self.service_scv) / 2

    def wait_s(self, quantile: float) -> float:
        """Of those who wait, waits are taken as exponential, as they are in M/M/c and in heavy traffic
        (J. F. C. Kingman, The single server queue in heavy traffic, 1961)."""
        waits = erlang_c(self.busy * self.servers, self.servers)
        if waits <= 1 - quantile:
            return 0.0
        return self.mean_wait_s / waits * float(np.log(waits / (1 - quantile)))


def erlang_c(load: float, servers: int) -> float:
    """The chance that all servers of M/M/c are busy. load: arrivals times service, below `servers`.

    By the recursion of Erlang's B formula, which does not overflow.
    """
    blocked = 1.0
    for number in range(1, servers + 1):
        blocked = load * blocked / (number + load * blocked)
    return blocked / (1 - load / servers * (1 - blocked))


def crowded(sequences: float) -> float:
    """How many sequences a request shares a group with, in the mean of its answer, at the 99th percentile.

    Those that come at random and stay equally long (M/D/inf) are Poisson distributed around `sequences`, and
    the covariance falls linearly over a stay; so the mean over a stay has a variance of 2/3 of theirs.
    """
    return sequences + NORMAL_99 * float(np.sqrt(2 / 3 * sequences))


def stalled(prompts: float) -> float:
    """How many prompts interrupt an answer at the 99th percentile, where `prompts` do in the mean: they come
    at random, so their number is Poisson distributed."""
    return prompts + NORMAL_99 * float(np.sqrt(prompts))
