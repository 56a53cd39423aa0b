"""Parameters of reductions and of KV transfers, from the few published figures: arithmetic, no regression."""

import csv
from collections.abc import Mapping, Sequence
from importlib import resources

import numpy as np

from rackscale.cost.collectives.priors import PRIORS
from rackscale.cost.priors import GENERATIONS
from rackscale.specs.catalog import load_system

US_PER_S = 1e6


def _rows(name: str) -> Sequence[Mapping[str, str]]:
    text = (resources.files("rackscale.plan") / "data" / name).read_text(encoding="utf-8")
    return list(csv.DictReader(text.splitlines()))


def _mean(values: Sequence[float]) -> float:
    return float(np.exp(np.mean(np.log(values))))


def reduction_lines() -> list[str]:
    """Sections `reduction` and `kv_transfer` of the fitted file.

    A latency is the geometric middle of the range of NCCL's smallest messages. Beyond a domain a reduction
    reaches what DeepEP reaches of the network, and pays its latency at each doubling of domains.
    """
    lines = []
    for generation in GENERATIONS:
        rows = [row for row in _rows("nccl.csv") if load_system(row["system"]).chip.generation == generation]
        lines += ["", f"[reduction.{generation}]"]
        latency = _mean(
            [float(row[f"smallest_message_{end}_us"]) / US_PER_S for row in rows for end in ("low", "high")]
        )
        for kind in ("all_gather", "all_reduce"):
            share = _mean(
                [
                    float(row[f"{kind}_bytes_per_s"]) / load_system(row["system"]).scale_up_bytes_per_s
                    for row in rows
                ]
            )
            lines += [f"{kind}_share = {share:.4f}", f"{kind}_latency_s = {latency:.4g}"]
    network = {name: PRIORS[f"ll.dispatch.network_{name}"].value for name in ("share", "latency_s")}
    lines += ["", "[reduction.network]", *(f"{name} = {value:.4g}" for name, value in network.items())]
    return lines + _kv_lines(network)


def _kv_lines(network: Mapping[str, float]) -> list[str]:
    """From one published transfer: the payload moved as fast as over the network, and posting took a share of
    the whole. A piece on the fabric therefore takes its part of the moving time."""
    (row,) = _rows("kv_transfer.csv")
    system = load_system(row["system"])
    pieces = _mean([float(row["descriptors_low"]), float(row["descriptors_high"])])
    moving = float(row["payload_bytes"]) / (system.scale_out_bytes_per_s * network["share"])
    posting = float(row["fabric_share_of_time_posting"])
    post = moving * posting / (1 - posting) / pieces
    share = PRIORS["one_sided.dispatch.link_share"].value
    latency = network["latency_s"]
    over = float(row["fabric_over_network_post"])
    sections = {
        "fabric": {"latency_s": latency, "post_s": post, "piece_s": moving / pieces, "share": share},
        "network": {"latency_s": latency, "post_s": post / over, "piece_s": 0.0, "share": network["share"]},
    }
    lines = []
    for name, values in sections.items():
        lines += ["", f"[kv_transfer.{name}]"]
        lines += [f"{key} = {value:.4g}" for key, value in values.items()]
    return lines
