"""What the visits of bench/engines.py come to: medians, ratios against targets, where steps go."""

import statistics
from collections.abc import Iterable
from typing import Any

from rich.console import Console
from rich.table import Table

Visit = dict[str, Any]
OURS = "rackscale"
LLAMA = "llama.cpp"  # the best of its formats

# What rackscale is to be, times the peer.
TARGETS = (
    ("decode", "1", "llama.cpp q4_0", 1.2),
    ("decode", "1", "llama.cpp nvfp4", 2.2),
    ("decode", "1", "vllm", 3.0),
    ("decode", "8", "llama.cpp q4_0", 1.7),
    ("decode", "32", "llama.cpp q4_0", 2.3),
    ("decode", "32", "llama.cpp nvfp4", 5.0),
    ("decode", "32", "vllm", 2.0),
    ("prefill", "512", "transformers", 1.5),
    ("prefill", "512", LLAMA, 2.3),
)
WIDTH = 120
OUTSIDE = ("engine", "rest of the rank")  # what no kernel says it took; see drive_rackscale.py
LOAD_TARGET_S, MEMORY_TARGET = 2.0, 1.25


def ratios(visits: list[Visit]) -> list[dict[str, Any]]:
    """Each target, and what was reached with each number of threads. same_run: by rounds of one run;
    otherwise of medians of different ones, which the machine's state may blur."""
    found = []
    for threads in sorted({visit["threads"] for visit in visits}):
        here = [visit for visit in visits if visit["threads"] == threads]
        for kind, size, peer, target in TARGETS:
            by_round = [_by_round(here, name, kind, size) for name in (OURS, peer)]
            if not all(by_round):
                continue
            both = sorted(by_round[0].keys() & by_round[1].keys())
            values = [by_round[0][key] / by_round[1][key] for key in both]
            medians = [statistics.median(values.values()) for values in by_round]
            reached = statistics.median(values) if both else medians[0] / medians[1]
            found.append(
                {
                    "threads": threads,
                    "work": f"{kind} {size}",
                    "peer": peer,
                    "target": target,
                    "reached": reached,
                    "by_round": values,
                    "same_run": bool(both),
                }
            )
    return found


def _by_round(visits: Iterable[Visit], name: str, kind: str, size: str) -> dict[tuple[int, int], float]:
    """Tokens per second by run and round; of `LLAMA` the best format's."""
    found: dict[tuple[int, int], float] = {}
    for visit in visits:
        if (visit["engine"] == name or (name == LLAMA and visit["engine"].startswith(LLAMA))) and (
            size in visit[kind]
        ):
            key = (visit["run"], visit["round"])
            found[key] = max(found.get(key, 0.0), visit[kind][size])
    return found


def print_report(result: dict[str, Any]) -> None:
    console = Console(width=WIDTH)
    visits = result["visits"]
    for threads in sorted({visit["threads"] for visit in visits}):
        console.print(_medians([visit for visit in visits if visit["threads"] == threads], threads))
    table = Table("threads", "work", "against", "ratio", "target", "")
    for ratio in result["ratios"]:
        note = "" if ratio["same_run"] else "not in one run"
        mark = "reached" if ratio["reached"] >= ratio["target"] else "missed"
        row = (str(ratio["threads"]), ratio["work"], ratio["peer"], f"{ratio['reached']:.2f}")
        table.add_row(*row, f"{ratio['target']:.1f}", f"{mark} {note}")
    console.print(table)
    for line in _start_lines(visits):
        console.print(line)
    for visit in reversed(visits):
        if "profile" in visit["more"]:
            for entry in visit["more"]["profile"]:
                limits = statistics.mean(visit["bandwidth_gbs"]), visit["int8_gops"]
                console.print(_profile(entry, *limits))
            break


def _medians(visits: list[Visit], threads: int) -> Table:
    sizes = {
        kind: sorted({size for visit in visits for size in visit[kind]}, key=int)
        for kind in ("prefill", "decode")
    }
    heads = [f"{kind} {size}" for kind, all_ in sizes.items() for size in all_]
    columns = ("engine", *heads, "load, s", "GB", "visits", "share of bandwidth")
    table = Table(*columns, title=f"tok/s, {threads} threads")
    for name in dict.fromkeys(visit["engine"] for visit in visits):
        own = [visit for visit in visits if visit["engine"] == name]
        cells = [
            f"{statistics.median(values):.1f}" if values else "-"
            for kind, all_ in sizes.items()
            for size in all_
            for values in [[visit[kind][size] for visit in own if size in visit[kind]]]
        ]
        load, peak = (statistics.median(visit[key] for visit in own) for key in ("load_s", "peak_gb"))
        table.add_row(name, *cells, f"{load:.1f}", f"{peak:.1f}", str(len(own)), _share(own))
    return table


def _share(visits: list[Visit]) -> str:
    """Of the bandwidth, at the smallest batch, where the engine says what it reads."""
    shares = []
    for visit in visits:
        reads = visit["more"].get("step_gb", {})
        if reads:
            batch = min(reads, key=int)
            rate = reads[batch] * visit["decode"][batch] / int(batch)
            shares.append(rate / statistics.mean(visit["bandwidth_gbs"]))
    return f"{statistics.median(shares):.2f}" if shares else "-"


def _start_lines(visits: list[Visit]) -> Iterable[str]:
    own = [visit for visit in visits if visit["engine"] == OURS]
    if own:
        load = statistics.median(visit["load_s"] for visit in own)
        ready = statistics.median(visit["more"]["ready_s"] for visit in own)
        times = statistics.median(visit["peak_gb"] / visit["file_gb"] for visit in own)
        yield f"rackscale: loaded in {load:.2f} s (target {LOAD_TARGET_S}), {ready:.2f} s with imports"
        yield f"rackscale: {times:.2f} of its file resident at most (target {MEMORY_TARGET}), with KV cache"


def _profile(entry: dict[str, Any], bandwidth_gbs: float, int8_gops: float) -> Table:
    total, gb, gop = entry["ms"], entry["linear_bytes"] / 1e9, entry["linear_operations"] / 1e9
    inside = total - sum(entry["operators_ms"][name] for name in OUTSIDE)
    title = f"{entry['work']}: {total:.2f} ms a step, {inside / total:.0%} in kernels"
    table = Table("part", "ms", "share", title=title)
    for name, value in sorted(entry["operators_ms"].items(), key=lambda item: -item[1]):
        table.add_row(name, f"{value:.3f}", f"{value / total:.1%}")
    bounds = (
        (f"reading {gb:.2f} GB of weights at {bandwidth_gbs:.0f} GB/s", gb / bandwidth_gbs * 1e3),
        (f"{gop:.1f} GOP at {int8_gops:.0f} GOP/s", gop / int8_gops * 1e3),
    )
    for name, bound in bounds:
        table.add_row(f"bound: {name}", f"{bound:.3f}", f"{bound / total:.1%}")
    return table
