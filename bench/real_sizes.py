"""Real sizes on this machine: checkpoints in NVFP4 of Qwen3-30B-A3B's shape (17 GB), and of Kimi-K2's cut
to a dense layer and one with its 384 experts (16 GB), with random weights, run by one rank and by several
that share the experts. Says tokens per second, and the most memory that all processes together had: pages
that they share count once (proportional set size), and mapped pages of the file count too.

    python bench/real_sizes.py [--models qwen3,kimi] [--batches 1,8] [--prefill 128] [--keep] [--out FILE]
"""

import argparse
import json
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from machine import machine
from peers.cache import DEFAULT
from peers.rackscale_local import DRIVER, Options
from peers.visit import Work, warm
from probe import bandwidth_gbs
from random_model import LIKE_KIMI, LIKE_QWEN3, random_model
from rich.console import Console
from rich.table import Table
from shapes import Config, kimi_k2, qwen3_30b_a3b

RESULTS = Path(__file__).parent / "results" / "real_sizes.json"
POLL_S = 1.0
LIMIT_GIB = 22.0
KIB_PER_GIB = 2**20


@dataclass(frozen=True, kw_only=True, slots=True)
class Model:
    """A shape, what of it stays in bf16, and by how many ranks it is run."""

    config: Config
    bf16: tuple[str, ...]
    ranks: tuple[int, ...]


MODELS = {
    "qwen3": Model(config=qwen3_30b_a3b(), bf16=LIKE_QWEN3, ranks=(1, 2)),
    "kimi": Model(config=kimi_k2(num_layers=2), bf16=LIKE_KIMI, ranks=(1, 8)),
}


def proportional_gib(pid: int) -> float:
    """Of a process and of all that come from it."""
    total = 0.0
    for process in (pid, *_below(pid)):
        try:
            lines = Path(f"/proc/{process}/smaps_rollup").read_text(encoding="utf-8").splitlines()
        except OSError:  # it has gone
            continue
        total += next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / KIB_PER_GIB
    return total


def _below(pid: int) -> Iterator[int]:
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            children = [int(word) for word in path.read_text(encoding="utf-8").split()]
        except OSError:  # it has gone
            continue
        for child in children:
            yield child
            yield from _below(child)


def served(model: Path, work: Work, options: Options) -> dict[str, Any]:
    """What the driver says, and the most memory that its processes had."""
    words = [sys.executable, "-P", DRIVER, model, json.dumps(asdict(work)), json.dumps(asdict(options))]
    process = subprocess.Popen([str(word) for word in words], stdout=subprocess.PIPE, text=True)
    peak = [0.0]

    def watch() -> None:
        while process.poll() is None:
            peak[0] = max(peak[0], proportional_gib(process.pid))
            time.sleep(POLL_S)

    watcher = threading.Thread(target=watch)
    watcher.start()
    out, _ = process.communicate()
    watcher.join()
    if process.returncode:
        sys.exit(f"{model.name} by {options.ranks} ranks failed")
    found: dict[str, Any] = json.loads(out.splitlines()[-1])["visit"]
    return found | {"peak_gib": peak[0]}


def measure(name: str, options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Make the checkpoint, run it by each layout, and delete it."""
    model, path = MODELS[name], options.cache / name
    start = time.perf_counter()
    if not (path / "config.json").exists():
        random_model(path, model.config, bf16=model.bf16)
    made_s = time.perf_counter() - start
    files = sorted(path.glob("*.safetensors"))
    try:
        for ranks in model.ranks:
            warm(files)
            work = Work(
                threads=options.threads,
                prefill=options.prefill,
                batches=options.batches,
                tokens=options.tokens,
            )
            local = Options(activations=options.activations, ranks=ranks, kv_gib=options.kv_gib)
            entry = {
                "model": name,
                "ranks": ranks,
                "file_gb": sum(file.stat().st_size for file in files) / 1e9,
                "made_s": made_s,
                "bandwidth_gbs": bandwidth_gbs(options.threads),
                **served(path, work, local),
            }
            print(json.dumps(entry), file=sys.stderr, flush=True)
            yield entry
    finally:
        if not options.keep:
            shutil.rmtree(path)


def print_table(entries: list[dict[str, Any]]) -> None:
    table = Table("model", "ranks", "file, GB", "load, s", "peak, GiB", "prefill tok/s", "decode tok/s")
    for entry in entries:
        decode = ", ".join(f"{batch}: {rate:.1f}" for batch, rate in entry["decode"].items())
        prefill = ", ".join(f"{length}: {rate:.1f}" for length, rate in entry["prefill"].items())
        peak = f"{entry['peak_gib']:.1f}" + (" (too much)" if entry["peak_gib"] > LIMIT_GIB else "")
        cells = (entry["model"], str(entry["ranks"]), f"{entry['file_gb']:.1f}", f"{entry['load_s']:.1f}")
        table.add_row(*cells, peak, prefill, decode)
    Console(width=120).print(table)


def numbers(text: str) -> tuple[int, ...]:
    return tuple(int(word) for word in text.split(",") if word)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--models", default="qwen3,kimi")
    parser.add_argument("--batches", type=numbers, default=(1, 8))
    parser.add_argument("--prefill", type=numbers, default=(128,))
    parser.add_argument("--tokens", type=int, default=24)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--activations", default="auto")
    parser.add_argument("--kv-gib", type=float, default=0.5)
    parser.add_argument("--keep", action="store_true", help="do not delete the checkpoints")
    parser.add_argument("--cache", type=Path, default=DEFAULT, help="where checkpoints are made")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    entries = [entry for name in options.models.split(",") for entry in measure(name, options)]
    result = {"machine": machine(), "limit_gib": LIMIT_GIB, "entries": entries}
    options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print_table(entries)


if __name__ == "__main__":
    main()
