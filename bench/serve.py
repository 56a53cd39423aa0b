"""The server against transformers' `generate`: the same model, the same prompts, one run.

Each round asks both for the same greedy output, first for one sequence, then for several at once (streams
over HTTP here, one batch there). Tokens per second count the whole way: for the server from the
request to the stream's last byte, prefill, HTTP and text included; for transformers the call of `generate`
on token ids. Rounds alternate between the two and bring new prompts, so that no prefix is cached.
Then the server is started again and again: seconds from the command to /health's first 200, with files in
the page cache; and the memory of its processes is read.

    python bench/serve.py [--model FOLDER] [--rounds 5] [--tokens 128] [--streams 1,16] [--out FILE]
"""

import argparse
import asyncio
import importlib.metadata
import json
import os
import platform
import random
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import aiohttp
import torch
from rich.console import Console
from rich.table import Table
from server import NAME, Server, serving
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results" / "serve.json"
PACKAGES = ("rackscale", "ai-dynamo-runtime", "torch", "transformers")
PROMPT = 32  # tokens
LAYOUT = ("--mixed", "1")  # one rank beside one process of transformers

Prompts = list[list[int]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Line:
    """A line of the table: tokens per second by round, and their medians. same: outputs with equal text."""

    streams: int
    rackscale: float
    transformers: float
    ratio: float
    same: str
    rackscale_rounds: list[float]
    transformers_rounds: list[float]


@dataclass(frozen=True, kw_only=True, slots=True)
class Memory:
    """MiB of one process. pss: shared pages count in parts."""

    process: str
    rss: float
    pss: float


async def read_stream(server: Server, session: aiohttp.ClientSession, prompt: list[int], tokens: int) -> str:
    """One stream's whole text. The check of its length is part of the run."""
    body = {
        "model": NAME,
        "prompt": prompt,
        "max_tokens": tokens,
        "ignore_eos": True,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    text, usage = [], {"completion_tokens": 0}
    async with session.post(f"{server.url}/v1/completions", json=body) as answer:
        answer.raise_for_status()
        async for line in answer.content:
            if not line.startswith(b"data: {"):
                continue
            chunk = json.loads(line[len(b"data: ") :])
            text += [choice["text"] for choice in chunk["choices"]]
            usage = chunk.get("usage") or usage
    assert usage["completion_tokens"] == tokens, "the server made fewer tokens than asked for"
    return "".join(text)


class Reference:
    """transformers, in this process: fp32, its defaults for attention and experts, `num_threads` threads."""

    def __init__(self, model: Path, num_threads: int) -> None:
        torch.set_num_threads(num_threads)
        self._model: Any = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)  # evaluation mode
        self._tokenizer = AutoTokenizer.from_pretrained(model)
        self.vocab_size: int = self._model.config.vocab_size

    def generate(self, prompts: Prompts, tokens: int) -> torch.Tensor:
        """The output's token ids, [prompts, tokens]."""
        config = GenerationConfig(  # type: ignore[no-untyped-call]  # transformers gives it no types
            max_new_tokens=tokens, do_sample=False, eos_token_id=None, pad_token_id=0, use_cache=True
        )
        with torch.inference_mode():
            ids = torch.tensor(prompts)
            output = self._model.generate(ids, attention_mask=torch.ones_like(ids), generation_config=config)
        new: torch.Tensor = output[:, PROMPT:]
        assert new.shape[1] == tokens, "transformers made fewer tokens than asked for"
        return new

    def text(self, output: torch.Tensor) -> list[str]:
        return [str(self._tokenizer.decode(row)) for row in output.tolist()]


async def measure(
    server: Server,
    session: aiohttp.ClientSession,
    reference: Reference,
    streams: int,
    options: argparse.Namespace,
) -> Line:
    """One warming round, then `rounds` that count."""
    ours, theirs, same = [], [], 0
    for round_ in range(-1, options.rounds):
        prompts = prompts_of(reference.vocab_size, streams, seed=f"{streams}.{round_}")
        start_s = time.perf_counter()
        texts = await asyncio.gather(*(read_stream(server, session, p, options.tokens) for p in prompts))
        middle_s = time.perf_counter()
        output = reference.generate(prompts, options.tokens)
        end_s = time.perf_counter()
        if round_ >= 0:
            ours.append(streams * options.tokens / (middle_s - start_s))
            theirs.append(streams * options.tokens / (end_s - middle_s))
            same += sum(a == b for a, b in zip(texts, reference.text(output), strict=True))
    return Line(
        streams=streams,
        rackscale=statistics.median(ours),
        transformers=statistics.median(theirs),
        ratio=statistics.median(ours) / statistics.median(theirs),
        same=f"{same} of {streams * options.rounds}",
        rackscale_rounds=ours,
        transformers_rounds=theirs,
    )


def prompts_of(vocab_size: int, count: int, *, seed: str) -> Prompts:
    """Token ids drawn evenly; never the model's special ones, which come first."""
    draw = random.Random(seed)
    return [[draw.randrange(16, vocab_size) for _ in range(PROMPT)] for _ in range(count)]


async def start_times(options: argparse.Namespace, session: aiohttp.ClientSession) -> list[float]:
    times = []
    for _ in range(options.rounds):
        async with serving(options.model, session, *LAYOUT) as server:
            times.append(server.ready_s)
    return times


NAMES = {"engine_process": "engine", "rank_host": "host"}


def memory_of(server: Server) -> list[Memory]:
    """Of the server's process and of all that come from it."""
    return [memory("gateway, frontend, desk", server.pid), *below(server.pid, "")]


def below(pid: int, parent: str) -> list[Memory]:
    """Of a process' children and theirs; what a host has forked is a rank."""
    found = []
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, path.read_text(encoding="utf-8").split()):
            words = Path(f"/proc/{child}/cmdline").read_text(encoding="utf-8")
            known = next((name for module, name in NAMES.items() if module in words), "other")
            name = "rank" if parent == "host" else known
            found += [memory(name, child), *below(child, name)]
    return found


def memory(name: str, pid: int) -> Memory:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="utf-8").splitlines()[1:]
    kib = {line.split(":")[0]: int(line.split()[1]) for line in lines}
    return Memory(process=name, rss=kib["Rss"] / 1024, pss=kib["Pss"] / 1024)


def machine() -> dict[str, object]:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return {
        "cpu": names[0] if names else platform.processor(),
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        **{package: importlib.metadata.version(package) for package in PACKAGES},
    }


def print_tables(lines: Sequence[Line], starts: Sequence[float], memories: Sequence[Memory]) -> None:
    console = Console()
    table = Table("streams", "rackscale tok/s", "transformers tok/s", "ratio", "same text")
    for line in lines:
        numbers = (f"{line.rackscale:.0f}", f"{line.transformers:.0f}", f"{line.ratio:.1f}")
        table.add_row(str(line.streams), *numbers, line.same)
    console.print(table)
    console.print(f"ready in {statistics.median(starts):.2f} s (median of {len(starts)})")
    for entry in memories:
        console.print(f"{entry.process}: {entry.rss:.0f} MiB resident, {entry.pss:.0f} MiB proportional")


async def run(options: argparse.Namespace) -> None:
    reference = Reference(options.model, options.threads)
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(
        connector=connector, timeout=aiohttp.ClientTimeout(total=None)
    ) as session:
        async with serving(options.model, session, *LAYOUT) as server:
            lines = [
                await measure(server, session, reference, streams, options)
                for streams in map(int, options.streams.split(","))
            ]
            memories = memory_of(server)
        starts = await start_times(options, session)
    result = {
        "machine": machine(),
        "model": options.model.name,
        "tokens": options.tokens,
        "transformers_threads": options.threads,
        "lines": [asdict(line) for line in lines],
        "ready_s": {"median": statistics.median(starts), "all": starts},
        "memory_mib": [asdict(entry) for entry in memories],
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print_tables(lines, starts, memories)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, default=ROOT / "models" / "austen-moe", help="a checkpoint")
    parser.add_argument("--rounds", type=int, default=5, help="rounds that count, of everything")
    parser.add_argument("--tokens", type=int, default=128, help="new tokens of each sequence")
    parser.add_argument("--streams", default="1,16", help="sequences at once, comma-separated")
    parser.add_argument(
        "--threads", type=int, default=os.cpu_count(), help="threads of transformers (torch's)"
    )
    parser.add_argument("--out", type=Path, default=RESULTS, help="where the JSON goes")
    asyncio.run(run(parser.parse_args()))


if __name__ == "__main__":
    main()
