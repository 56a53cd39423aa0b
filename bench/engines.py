"""Whole engines on one shape, one after the other, round by round: OLMoE's layers with random weights,
in NVFP4 here (experts, attention and lm_head), in the peers in what they are best at.

A visit starts an engine with its files in the page cache, times prompts and decodes, and stops it; the
machine's read bandwidth is measured before and after. Each round begins with another engine. Engines that
take a minute to start (transformers, vLLM) come in every other round. A ratio is the median over rounds of
what rackscale and the peer did in the same round. Peers are installed once into a cache folder; one that
cannot be is left out, with the reason. Results of several runs gather in one file, each visit with its run.

    python bench/engines.py [--engines rackscale,q4_0,nvfp4,vllm,transformers] [--rounds 5] [--threads 2]
                            [--batches 1,8,32] [--prefill 512] [--profile] [--out FILE]
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from engines_report import print_report, ratios
from machine import machine
from peers.cache import DEFAULT, Cache
from peers.in_bf16 import Transformers, Vllm
from peers.llama_cpp import FORMATS, LlamaCpp
from peers.rackscale_local import Options, Rackscale
from peers.visit import MissingError, Peer, Work, warm
from probe import bandwidth_gbs, int8_gops

RESULTS = Path(__file__).parent / "results" / "engines.json"
HEAVY_EVERY = 2
OWN = ("rackscale", "rackscale-bf16", "rackscale-int8", "rackscale-fp32", "rackscale-nvfp4")
NAMES = ", ".join((*OWN, *FORMATS, "vllm", "transformers"))
ENGINES = "rackscale,q4_0,nvfp4,vllm,transformers"


def engine(name: str, cache: Cache, options: argparse.Namespace) -> Peer:
    """By its name on the command line."""
    layers = options.layers
    if name in OWN:
        activations = name.removeprefix("rackscale").removeprefix("-") or options.activations
        own = Options(activations=activations, profile=options.profile)
        return Rackscale(name, cache, layers, own, options.model)
    if name in FORMATS:
        return LlamaCpp(cache, layers, name)
    return {"vllm": Vllm, "transformers": Transformers}[name](cache, layers)


def prepared(options: argparse.Namespace) -> tuple[list[Peer], dict[str, str]]:
    """The engines that can be had, and why the others cannot."""
    cache, found, missing = Cache(options.cache), [], {}
    for name in options.engines.split(","):
        peer = engine(name, cache, options)
        try:
            peer.prepare()
        except MissingError as error:
            missing[peer.name] = str(error)
            print(f"{peer.name} is left out: {error}", file=sys.stderr)
        else:
            found.append(peer)
    for peer in found:
        if isinstance(peer, LlamaCpp):
            peer.drop_source()
    return found, missing


def visits(peers: Sequence[Peer], work: Work, rounds: int, run: int) -> list[dict[str, Any]]:
    """Of all rounds, in the order in which they were made."""
    made = []
    for number in range(rounds):
        turn = number % len(peers)
        for peer in [*peers[turn:], *peers[:turn]]:
            if peer.heavy and number % HEAVY_EVERY:
                continue
            warm(peer.files)
            before = bandwidth_gbs(work.threads)
            try:
                visit = peer.visit(work)
            except MissingError as error:
                print(f"{peer.name}, round {number}: {error}", file=sys.stderr)
                continue
            entry = {
                "engine": peer.name,
                "weights": peer.weights,
                "version": peer.version,
                "file_gb": sum(path.stat().st_size for path in peer.files) / 1e9,
                "run": run,
                "round": number,
                "threads": work.threads,
                "bandwidth_gbs": [before, bandwidth_gbs(work.threads)],
                "int8_gops": int8_gops(work.threads),
                **asdict(visit),
            }
            print(f"round {number}: {peer.name}", _short(entry), file=sys.stderr, flush=True)
            made.append(entry)
    return made


def _short(entry: dict[str, Any]) -> str:
    rates = [f"{kind} {n}: {r:.1f}" for kind in ("prefill", "decode") for n, r in entry[kind].items()]
    band = statistics.mean(entry["bandwidth_gbs"])
    return ", ".join([*rates, f"load {entry['load_s']:.1f} s, {entry['peak_gb']:.1f} GB, {band:.0f} GB/s"])


def gathered(path: Path, made: list[dict[str, Any]], header: dict[str, Any]) -> dict[str, Any]:
    """The file's result with this run's visits in place of older ones of the same peers and threads. Older
    visits of rackscale stay with the peers that they were made beside."""
    old = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"runs": [], "visits": []}
    new = {(entry["engine"], entry["threads"]) for entry in made}
    kept = [entry for entry in old["visits"] if (entry["engine"], entry["threads"]) not in new]
    beside = {entry["run"] for entry in kept if entry["engine"] not in OWN}
    kept = [
        entry
        for entry in old["visits"]
        if entry in kept or (entry["engine"] in OWN and entry["run"] in beside)
    ]
    everything = json.loads(json.dumps(kept + made))  # numbers of dicts' keys become text, as in the file
    used = {entry["run"] for entry in everything}
    runs = [run for run in [*old["runs"], header] if run["run"] in used]
    return {"runs": runs, "ratios": ratios(everything), "visits": everything}


def next_run(path: Path) -> int:
    if not path.exists():
        return 1
    return 1 + max((run["run"] for run in json.loads(path.read_text(encoding="utf-8"))["runs"]), default=0)


def numbers(text: str) -> tuple[int, ...]:
    return tuple(int(word) for word in text.split(",") if word)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--engines", default=ENGINES, help=f"of {NAMES}")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batches", type=numbers, default=(1, 8, 32), help="sequences that decode together")
    parser.add_argument("--prefill", type=numbers, default=(512,), help="lengths of prompts")
    parser.add_argument("--tokens", type=int, default=24, help="new ones of each sequence")
    parser.add_argument("--layers", type=int, default=16, help="fewer for a trial")
    parser.add_argument("--activations", default="auto", help="of `rackscale`")
    parser.add_argument("--model", type=Path, help="what rackscale runs, instead of the shape in NVFP4")
    parser.add_argument("--profile", action="store_true", help="where rackscale's steps go, too")
    parser.add_argument("--prepare", action="store_true", help="only have everything made and installed")
    parser.add_argument("--cache", type=Path, default=DEFAULT, help="where peers and models are kept")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    peers, missing = prepared(options)
    if options.prepare:
        return
    work = Work(
        threads=options.threads, prefill=options.prefill, batches=options.batches, tokens=options.tokens
    )
    run, start = next_run(options.out), time.perf_counter()
    header = {"run": run, "when": time.strftime("%F %T"), "machine": machine(), "missing": missing}
    made = visits(peers, work, options.rounds, run)
    header |= {"work": asdict(work), "layers": options.layers, "seconds": time.perf_counter() - start}
    result = gathered(options.out, made, header)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print_report(result)


if __name__ == "__main__":
    main()
