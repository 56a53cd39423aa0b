"""The formula of one phase of an exchange."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rackscale.cost.collectives.traffic import Traffic

Array = NDArray[np.float64]

WIDTH = 8.0  # ranks at which shares of a link are stated


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Terms:
    """Values of a phase's parameters, [R] or [K, R]; `priors` says what each means."""

    latency_s: Array
    doubling_s: Array
    launch_s: Array
    network_latency_s: Array
    token_s: Array
    link_share: Array
    network_share: Array
    crowding: Array

    def seconds(self, traffic: Traffic) -> Array:
        """Latency, time for each token, and the slower of both ways: copies through the fabric (those that
        leave the domain are written by the same cores), and bytes through the network. Where the host
        launches it takes no less than that: the fourth root of the sum of fourth powers, a maximum with a
        soft corner."""
        crowded = (np.maximum(traffic.ranks, WIDTH) / WIDTH) ** self.crowding
        copying = traffic.copied_bytes * crowded / (traffic.fabric_bytes_per_s * self.link_share)
        sending = traffic.network_bytes / (traffic.network_bytes_per_s * self.network_share)
        latency = self.latency_s + self.doubling_s * np.log2(traffic.ranks)
        latency = latency + np.where(traffic.spans, self.network_latency_s, 0.0)
        device = latency + traffic.tokens * self.token_s + np.maximum(copying, sending)
        seconds = np.sqrt(np.hypot(self.launch_s * self.launch_s, device * device))
        return np.where(traffic.ranks > 1, seconds, 0.0)
