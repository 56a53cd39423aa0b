"""What bench/planners.py found: errors, rows answered, time and memory."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

METRICS = {"tpot": "TPOT", "tokens_per_s_per_gpu": "tokens/s per GPU", "ttft": "TTFT"}
KINDS = {"own": "", "common": ", where all answer"}  # which rows: those that it answers, or all planners
WIDTH = 140


def errors(
    truth: Mapping[str, np.ndarray], found: Mapping[str, np.ndarray], chosen: np.ndarray
) -> dict[str, dict[str, float]]:
    """Mean and median of |predicted / measured - 1|, and the geometric mean of predicted over measured, less
    1, of each metric that any of the rows has."""
    table = {}
    for name in METRICS:
        ratio = (found[name] / truth[name])[chosen]
        ratio = ratio[np.isfinite(ratio) & (ratio > 0)]
        if len(ratio):
            deviation = np.abs(ratio - 1)
            table[name] = {
                "n": len(ratio),
                "mape": float(deviation.mean()),
                "median": float(np.median(deviation)),
                "bias": float(np.exp(np.log(ratio).mean()) - 1),
            }
    return table


def print_report(result: Mapping[str, Any]) -> None:
    console = Console(width=WIDTH)
    heads = (f"{name}: mean (median), bias" for name in METRICS.values())
    table = Table("rows", "planner", "answered", *heads, title="errors: |predicted / measured - 1|")
    for group in next(iter(result["errors"].values())):
        for planner, groups in result["errors"].items():
            entry = groups[group]
            for kind, note in KINDS.items():
                if kind == "common" and entry["common"] == entry["own"]:
                    continue
                answered = f"{entry['answered']} of {entry['rows']}" if kind == "own" else ""
                cells = [cell(entry[kind].get(name)) for name in METRICS]
                table.add_row(group, f"{planner}{note}", answered, *cells)
        table.add_section()
    console.print(table)
    for planner, entry in result["planners"].items():
        console.print(
            f"{planner}: {entry['row_cpu_s'] * 1e3:.0f} ms for one row,"
            f" {entry['mean_cpu_s'] * 1e3:.1f} ms each of many, {entry['import_s']:.1f} s of imports,"
            f" {entry['peak_mb']:.0f} MB"
        )
        if "plan" in entry:
            plan = entry["plan"]
            console.print(
                f"  a plan: {plan['cpu_s']:.1f} s of the processor, {plan['seconds']:.1f} s on the clock,"
                f" {plan['peak_mb']:.0f} MB: {plan['command']}"
            )
        for reason, count in entry["refused"].items():
            console.print(f"  refused: {count} of {reason[:100]}")
    for name, reason in result["missing"].items():
        console.print(f"{name} is left out: {reason}")


def cell(entry: Mapping[str, float] | None) -> str:
    if entry is None:
        return "-"
    return f"{entry['mape']:.1%} ({entry['median']:.1%}), {entry['bias']:+.0%}"
