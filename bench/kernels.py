"""The packed kernels against what the machine can do: for few tokens the share of the read bandwidth, for
many that of the processor's peak. Both are measured in the same run, in turns with the kernels.

Matrices are of one expert's size in an OLMoE, as many as fill more memory than any cache, and are visited
in random order. Bandwidth is that of reading the same memory from end to end; int8's peak that of vpdpbusd
(vpmaddubsw on a machine that lacks it), bf16's that of vdpbf16ps (or of fp32's multiply-add).

    python bench/kernels.py [--megabytes 1024] [--rounds 5] [--tokens 1 2 4 8 16 32 128 512] [--threads 1 2]
"""

import argparse
import json
import statistics
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from machine import machine
from rich.console import Console
from rich.table import Table

from rackscale.runtime import _native
from rackscale.runtime.kernels.packing import TILE, Layout, allocate

RESULTS = Path(__file__).parent / "results" / "kernels.json"
DEPTH, COLUMNS = 2048, 1024
ACTIVATIONS = {"fp32": 0, "bf16": 1, "int8": 2, "nvfp4": 3}
TAKEN = {
    Layout.NVFP4: ("int8", "bf16", "nvfp4"),
    Layout.INT4: ("int8", "bf16"),
    Layout.MXFP4: ("int8", "bf16"),
    Layout.FP8: ("bf16",),
    Layout.BF16: ("bf16",),
}
MOST_OPERATIONS = 6e10  # a round of many tokens stops before all matrices were visited


@dataclass(frozen=True, slots=True)
class Figure:
    """Medians of all rounds; bandwidth and peak of the same rounds."""

    layout: str
    activations: str
    tokens: int
    threads: int
    gb_per_s: float
    bandwidth_gb_per_s: float
    share_of_bandwidth: float
    gop_per_s: float
    peak_gop_per_s: float
    share_of_peak: float


class Weights:
    """Matrices of a layout, one after the other, with random codes and ordinary scales."""

    def __init__(self, layout: Layout, size: int) -> None:
        self.layout = layout
        self.num_tiles = COLUMNS // TILE
        self.each = self.num_tiles * int(_native.tile_bytes(layout, DEPTH))
        self.count = size // self.each
        self.tiles = allocate(self.count * self.each)
        pattern = torch.randint(0x20, 0x40, (self.each,), dtype=torch.uint8)
        self.tiles.view(self.count, self.each).copy_(pattern)
        self.scales = torch.ones(self.num_tiles)
        self.order = torch.randperm(self.count, generator=torch.Generator().manual_seed(0)).tolist()

    def descriptors(self, activations: str) -> list[_native.Packed]:
        """In the order of the visits."""
        return [
            _native.Packed(
                format=self.layout,
                activations=ACTIVATIONS[activations],
                depth=DEPTH,
                columns=COLUMNS,
                tiles=self.tiles.data_ptr() + number * self.each,
                tile_scales=self.scales.data_ptr(),
                input_scale=0.0,
            )
            for number in self.order
        ]

    def bandwidth(self, threads: int) -> float:
        """Bytes a second."""
        return _native.read_bandwidth(self.tiles.data_ptr(), self.tiles.numel(), threads)


def _measure(weights: Weights, activations: str, tokens: int, threads: int, rounds: int) -> Figure:
    operations = 2 * DEPTH * COLUMNS * tokens
    matrices = weights.descriptors(activations)[: max(4, int(MOST_OPERATIONS / operations))]
    x_TK, out = torch.randn(tokens, DEPTH), torch.empty(tokens, COLUMNS)
    seconds, bandwidths, peaks = [], [], []
    for _ in range(rounds):
        bandwidths.append(weights.bandwidth(threads))
        peaks.append(_native.peak(activations in {"int8", "nvfp4"}, threads))
        start = time.perf_counter()
        for matrix in matrices:
            _native.packed_linear(
                x_TK.data_ptr(), DEPTH, tokens, matrix, 0, False, out.data_ptr(), COLUMNS, threads  # noqa: FBT003 (by position)
            )  # fmt: skip
        seconds.append((time.perf_counter() - start) / len(matrices))
    rate, speed = [weights.each / s for s in seconds], [operations / s for s in seconds]
    return Figure(
        layout=weights.layout.name.lower(),
        activations=activations,
        tokens=tokens,
        threads=threads,
        gb_per_s=round(statistics.median(rate) / 1e9, 2),
        bandwidth_gb_per_s=round(statistics.median(bandwidths) / 1e9, 2),
        share_of_bandwidth=_share(rate, bandwidths),
        gop_per_s=round(statistics.median(speed) / 1e9, 1),
        peak_gop_per_s=round(statistics.median(peaks) / 1e9, 1),
        share_of_peak=_share(speed, peaks),
    )


def _share(values: list[float], limits: list[float]) -> float:
    """The median of the rounds' shares."""
    return round(
        statistics.median(v / limit if limit else 0.0 for v, limit in zip(values, limits, strict=True)), 3
    )


def _show(figures: list[Figure]) -> None:
    table = Table("weights", "activations", "tokens", "threads", "GB/s", "of bandwidth", "GOP/s", "of peak")
    for f in figures:
        table.add_row(
            f.layout,
            f.activations,
            str(f.tokens),
            str(f.threads),
            f"{f.gb_per_s:.1f}",
            f"{f.share_of_bandwidth:.0%}",
            f"{f.gop_per_s:.0f}",
            f"{f.share_of_peak:.0%}",
        )
    Console().print(table)


def main() -> None:
    """Measures, prints, and writes what it measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokens", type=int, nargs="+", default=[1, 2, 4, 8, 16, 32, 128, 512])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--layouts", nargs="+", default=[layout.name.lower() for layout in Layout])
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    figures = []
    for name in options.layouts:
        layout = Layout[name.upper()]
        weights = Weights(layout, options.megabytes << 20)
        for activations in TAKEN[layout]:
            for threads in options.threads:
                for tokens in options.tokens:
                    figures.append(_measure(weights, activations, tokens, threads, options.rounds))
                    print(figures[-1], flush=True)
    _show(figures)
    result = {
        "machine": machine() | {"instructions": _native.instructions()},
        "depth": DEPTH,
        "columns": COLUMNS,
        "megabytes": options.megabytes,
        "rounds": options.rounds,
        "figures": [asdict(figure) for figure in figures],
    }
    options.results.parent.mkdir(exist_ok=True)
    options.results.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
