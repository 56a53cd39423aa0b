"""Prefill and decode apart against two mixed ranks with chunked prefill: the same cores, the same requests.

A few streams decode all the time, and once a second a long prompt comes. Servers of both layouts run in
turns, round by round, each with the same mix; what counts is what a client sees: the time between two chunks
of a stream (a chunk leaves every 20 ms at most, with all tokens since the last one), and between two tokens
at the engine, from its log. Then KV: bytes per second of a move between two ranks' caches, beside a plain
copy of as many bytes.

    python bench/disaggregation.py [--rounds 5] [--seconds 10] [--streams 8] [--long 1000] [--out FILE]
"""

import argparse
import asyncio
import json
import random
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import numpy as np
import torch
from machine import machine
from rich.console import Console
from rich.table import Table
from server import NAME, Server, serving

from rackscale.core import GroupId, KvPush, RankId, RequestId, column
from rackscale.measure import read_log
from rackscale.runtime.comm.heap import Heap
from rackscale.runtime.kv_cache import KvCache, KvShape
from rackscale.runtime.transfer.shared_memory import SharedTransfer
from rackscale.specs import GqaSpec, LayerSpec, MlaSpec, ModelSpec, RopeSpec

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results" / "disaggregation.json"
LAYOUTS = {
    "1 prefill + 1 decode": ["--prefill", "1", "--decode", "1"],
    "2 mixed": ["--mixed", "2"],
}
VOCAB = 2048
SHORT, SHORT_OUTPUT, LONG_OUTPUT = 16, 400, 8
LONG_EVERY_S = 1.0
WARM_UP_S = 1.0


@dataclass
class Seen:
    """By the clients of one run, after the warm-up."""

    gaps_s: list[float] = field(default_factory=list)
    ttft_s: list[float] = field(default_factory=list)  # of long prompts
    num_tokens: int = 0


class Mix:
    """The clients of one run."""

    def __init__(self, server: Server, session: aiohttp.ClientSession, seed: int, seconds: float) -> None:
        self.server, self.session, self.rng = server, session, random.Random(seed)
        self.start = time.perf_counter()
        self.end = self.start + seconds
        self.seen = Seen()

    @property
    def counts(self) -> bool:
        return time.perf_counter() > self.start + WARM_UP_S

    async def request(self, length: int, tokens: int, *, steady: bool) -> None:
        body = {
            "model": NAME,
            "prompt": [self.rng.randrange(2, VOCAB) for _ in range(length)],
            "max_tokens": tokens,
            "ignore_eos": True,
            "temperature": 0,
            "stream": True,
        }
        sent = last = time.perf_counter()
        first = True
        async with self.session.post(f"{self.server.url}/v1/completions", json=body) as answer:
            answer.raise_for_status()
            async for line in answer.content:
                now = time.perf_counter()
                if now > self.end:
                    return
                if not line.startswith(b"data: {"):
                    continue
                if self.counts:
                    if first and not steady:
                        self.seen.ttft_s.append(now - sent)
                    elif steady and not first:
                        self.seen.gaps_s.append(now - last)
                first, last = False, now

    async def steady(self) -> None:
        while time.perf_counter() < self.end:
            await self.request(SHORT, self.rng.randrange(SHORT_OUTPUT // 2, SHORT_OUTPUT), steady=True)

    async def long(self, length: int) -> None:
        tasks = []
        while time.perf_counter() < self.end:
            tasks.append(asyncio.ensure_future(self.request(length, LONG_OUTPUT, steady=False)))
            await asyncio.sleep(LONG_EVERY_S)
        await asyncio.gather(*tasks)


async def run_mix(options: argparse.Namespace, words: list[str], seed: int, log: Path) -> dict[str, float]:
    timeout = aiohttp.ClientTimeout(total=None)
    async with (
        aiohttp.ClientSession(timeout=timeout, connector=aiohttp.TCPConnector(limit=0)) as session,
        serving(options.model, session, *words, "--log", str(log)) as server,
    ):
        mix = Mix(server, session, seed, options.seconds)
        await asyncio.gather(*(mix.steady() for _ in range(options.streams)), mix.long(options.long))
    with log.open("rb") as lines:
        gaps, tokens_per_s = engine_gaps(lines)
    seen = mix.seen
    return {
        "client_gap_p50_ms": float(np.percentile(seen.gaps_s, 50)) * 1e3,
        "client_gap_p99_ms": float(np.percentile(seen.gaps_s, 99)) * 1e3,
        "engine_gap_p50_ms": float(np.percentile(gaps, 50)) * 1e3,
        "engine_gap_p99_ms": float(np.percentile(gaps, 99)) * 1e3,
        "output_tokens_per_s": tokens_per_s,
        "long_ttft_ms": statistics.median(seen.ttft_s) * 1e3,
    }


def engine_gaps(lines: Iterator[bytes]) -> tuple[list[float], float]:
    """Between two tokens of a steady stream, and tokens per second over the whole run."""
    log = read_log(lines)
    gaps: list[float] = []
    times: list[float] = []
    for record in log.requests:
        times += record.token_times_s
        if record.num_prompt <= SHORT:
            gaps += list(np.diff(record.token_times_s))
    return gaps, len(times) / (max(times) - min(times))


def kv_bandwidth(rounds: int = 9) -> list[dict[str, float | str]]:
    """Moves of 512 tokens between two caches, and a copy of the same bytes, in turns."""
    return [
        move_and_copy("MLA, 576 wide, 8 layers", mla(), rounds),
        move_and_copy("GQA, 8 heads of 128, 8 layers", gqa(), rounds),
    ]


def mla() -> ModelSpec:
    return shaped(
        MlaSpec(
            num_heads=8,
            q_lora_rank=None,
            kv_lora_rank=512,
            nope_head_dim=128,
            rope_head_dim=64,
            v_head_dim=128,
        )
    )


def gqa() -> ModelSpec:
    return shaped(GqaSpec(num_heads=16, num_kv_heads=8, head_dim=128))


def shaped(attention: MlaSpec | GqaSpec) -> ModelSpec:
    return ModelSpec(
        family="bench",
        vocab_size=64,
        hidden=64,
        dense_width=64,
        norm_eps=1e-6,
        tied_embeddings=False,
        max_positions=4096,
        attention=attention,
        rope=RopeSpec(theta=10000.0, dim=64),
        layers=(LayerSpec(moe=False, window=None),) * 8,
        moe=None,
    )


def move_and_copy(name: str, model: ModelSpec, rounds: int) -> dict[str, float | str]:
    tokens, block = 512, 16
    shape = KvShape(model=model, num_blocks=256, block_size=block, dtype=torch.float32)
    source, target = (shape.layers(Heap(1, shape.num_bytes).segments[0]) for _ in range(2))
    for layer in (*source, *target):
        for part in layer:
            part.fill_(1.0)
    cache = KvCache(source, block_size=block, max_running=1, max_model_len=4096)
    blocks = column(random.Random(0).sample(range(256), 256))
    cache.table[0] = blocks
    push = KvPush(
        request=RequestId("r"),
        row=0,
        start=0,
        end=tokens,
        group=GroupId(1),
        rank=RankId(0),
        blocks=column(reversed(blocks.tolist())),
        block_size=block,
    )
    transfer = SharedTransfer({(GroupId(1), RankId(0)): target})
    flat = torch.zeros(1)
    moves, copies = [], []
    for _ in range(rounds):
        start = time.perf_counter()
        with transfer.begin((push,), cache) as move:
            for layer in range(model.num_layers):
                move.after_layer(layer)
        moves.append(move.num_bytes / (time.perf_counter() - start))
        if len(flat) == 1:
            flat, other = torch.ones(move.num_bytes // 4), torch.ones(move.num_bytes // 4)
        start = time.perf_counter()
        other.copy_(flat)
        copies.append(move.num_bytes / (time.perf_counter() - start))
    moved, copied = statistics.median(moves[1:]), statistics.median(copies[1:])
    return {
        "what": name,
        "move_gb_per_s": moved / 1e9,
        "copy_gb_per_s": copied / 1e9,
        "share": moved / copied,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", type=Path, default=ROOT / "models" / "austen-moe")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--streams", type=int, default=8)
    parser.add_argument("--long", type=int, default=1000)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rounds: dict[str, list[dict[str, float]]] = {name: [] for name in LAYOUTS}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(options.rounds):
            for name, words in LAYOUTS.items():
                log = Path(folder) / f"{number}.jsonl"
                rounds[name].append(asyncio.run(run_mix(options, words, number, log)))
    medians = {
        name: {key: statistics.median(entry[key] for entry in entries) for key in entries[0]}
        for name, entries in rounds.items()
    }
    table = Table("median of rounds", *LAYOUTS)
    for key in next(iter(medians.values())):
        table.add_row(key, *(f"{medians[name][key]:.2f}" for name in LAYOUTS))
    apart, mixed = (medians[name] for name in LAYOUTS)
    ratios = {
        key: apart[key] / mixed[key]
        for key in ("client_gap_p99_ms", "engine_gap_p99_ms", "output_tokens_per_s")
    }
    bandwidth = kv_bandwidth()
    console = Console()
    console.print(table)
    console.print(f"apart over mixed: {ratios}")
    console.print(bandwidth)
    result = {
        "machine": machine(),
        "streams": options.streams,
        "long_prompt": options.long,
        "seconds": options.seconds,
        "medians": medians,
        "apart_over_mixed": ratios,
        "kv": bandwidth,
        "rounds": rounds,
    }
    options.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
