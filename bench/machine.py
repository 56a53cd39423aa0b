"""What a result has to say about where it was measured."""

import importlib.metadata
import os
import platform
import statistics
from collections.abc import Sequence
from pathlib import Path

PACKAGES = ("rackscale", "torch")


def machine() -> dict[str, object]:
    """The processor, its cores that we may use, memory, and versions."""
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.processor(),
    )
    memory = int(Path("/proc/meminfo").read_text().split()[1]) / 2**20
    return {
        "cpu": model,
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(memory, 1),
        "kernel": platform.release(),
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in PACKAGES},
    }


def quartiles(values: Sequence[float]) -> list[float]:
    """Lower, median and upper."""
    return statistics.quantiles(values, n=4, method="inclusive")
