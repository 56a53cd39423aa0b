"""How fast `rackscale quantize` is: MB of bf16 a second, against torch and, where it is installed, ModelOpt.

    python bench/quantize.py [--layers 1] [--rounds 5] [--out bench/results/quantize.json]

First a matrix of a Kimi-K2 expert, in memory, on one core: wall time, and the core's own (others share the
machine). Then a checkpoint of OLMoE's shape from file to file, by one core and by all.
"""

import argparse
import importlib.util
import json
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from machine import machine
from random_model import olmoe_shaped
from rich.console import Console
from rich.table import Table

from rackscale.checkpoint.numerics import nvfp4
from rackscale.checkpoint.quantizer import Options, open_job
from rackscale.checkpoint.quantizer import round_to_nearest as rtn

ROWS, COLUMNS = 2048, 7168
GOOD_STD = 0.02
MB = 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--layers", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "quantize.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    result = {
        "machine": machine(),
        "load_average": os.getloadavg()[0],
        "native": rtn.HAS_NATIVE,
        "matrix_mb_per_s": encoders(options.rounds),
        "checkpoint": checkpoint(options.layers, options.rounds),
    }
    report(result)
    options.out.write_text(json.dumps(result, indent=2) + "\n")


def encoders(rounds: int) -> dict[str, dict[str, float]]:
    """Medians over rounds, in each of which every encoder has its turn."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.empty((ROWS, COLUMNS), dtype=torch.bfloat16).normal_(0, GOOD_STD, generator=generator)
    scale = rtn.tensor_scale_of(rtn.largest(weight))
    expected, _ = rtn.encode(weight, scale)

    def whole() -> torch.Tensor:
        own = rtn.tensor_scale_of(rtn.largest(weight))
        codes, scales = rtn.encode(weight, own)
        rtn.squares(weight, codes, scales, own)
        return codes

    contenders: dict[str, Callable[[], torch.Tensor]] = {
        "rackscale, codes and scales": lambda: rtn.encode(weight, scale)[0],
        "rackscale, with largest and error": whole,
        "torch, the oracle": lambda: nvfp4.encode(weight)[0],
    }
    if importlib.util.find_spec("modelopt") is not None:
        from modelopt.torch.quantization.qtensor import NVFP4QTensor  # noqa: PLC0415 (may be absent)

        contenders["ModelOpt"] = lambda: NVFP4QTensor.quantize(weight, 16)[0]._quantized_data  # noqa: SLF001 (theirs)
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, encode in contenders.items():
            wall, core = time.perf_counter(), time.thread_time()
            codes = encode()
            seconds[name].append((time.perf_counter() - wall, time.thread_time() - core))
            assert torch.equal(codes, expected), f"{name} gives the same bits"
    size = weight.nbytes / MB
    return {
        name: {
            "wall": size / statistics.median(wall for wall, _ in times),
            "core": size / statistics.median(core for _, core in times),
        }
        for name, times in seconds.items()
    }


def checkpoint(layers: int, rounds: int) -> dict[str, dict[str, float]]:
    """From file to file, the source cached or not as it falls, and the output on disk in the end."""
    cores = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as folder:
        source = olmoe_shaped(Path(folder) / "source", layers)
        results: dict[str, list[tuple[float, float, float]]] = {f"{n} threads": [] for n in {1, cores}}
        for _ in range(rounds):
            for threads in sorted({1, cores}):
                target = Path(folder) / "target"
                wall, core = time.perf_counter(), time.process_time()
                with open_job(source, target, Options()) as job:
                    done = job.run(num_threads=threads)
                spent = (time.perf_counter() - wall, time.process_time() - core)
                results[f"{threads} threads"].append((done.bytes_before / MB, *spent))
                shutil.rmtree(target)
    return {
        name: {
            "mb": runs[0][0],
            "wall_mb_per_s": statistics.median(mb / wall for mb, wall, _ in runs),
            "mb_per_core_s": statistics.median(mb / core for mb, _, core in runs),
        }
        for name, runs in results.items()
    }


def report(result: dict[str, Any]) -> None:
    table = Table("one core, a matrix in memory", "MB/s", "MB per second of the core")
    for name, speed in result["matrix_mb_per_s"].items():
        table.add_row(name, f"{speed['wall']:.0f}", f"{speed['core']:.0f}")
    files = Table("a checkpoint, file to file", "MB/s", "MB per second of a core")
    for name, speed in result["checkpoint"].items():
        files.add_row(name, f"{speed['wall_mb_per_s']:.0f}", f"{speed['mb_per_core_s']:.0f}")
    Console().print(table, files)


if __name__ == "__main__":
    main()
