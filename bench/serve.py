"""How fast the server decodes, beside transformers on the same model in the same run.

Both complete the same prompts greedily, without an end token: one at a time, and sixteen at once (through
HTTP as sixteen streams; in transformers as one batch, which is its best case). The two take turns, round
by round, so that a machine whose speed drifts is fair to both; figures are medians over the rounds. Time to
ready is from the start of `rackscale serve` to the first 200 of /health, caches warm.

    python bench/serve.py [--model models/austen-moe] [--rounds 5] [--tokens 128] [--json] [--out FILE]
"""

import argparse
import asyncio
import json
import os
import platform
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import aiohttp
import torch
import transformers
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).parents[1]
PROMPT_TOKENS = 32
READY_LIMIT_S = 60.0
POLL_S = 0.02
BATCHES = (1, 16)
KIB_PER_MIB = 1024


@dataclass(frozen=True, kw_only=True)
class Line:
    """Decode rates in tokens/s over all streams: medians, with the least and the most."""

    streams: int
    server: float
    server_range: tuple[float, float]
    peer: float
    peer_range: tuple[float, float]
    ratio: float  # the median of the rounds' ratios


class Server:
    """A running `rackscale serve`."""

    def __init__(self, model: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.name = model.name
        command = [sys.executable, "-m", "rackscale.cli", "serve", str(model), "--port", str(self.port)]
        started_s = time.monotonic()
        self.process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        self.ready_s = asyncio.run(self._ready()) - started_s

    async def _ready(self) -> float:
        async with aiohttp.ClientSession() as session:
            limit_s = time.monotonic() + READY_LIMIT_S
            while time.monotonic() < limit_s:
                try:
                    async with session.get(f"{self.url}/health") as answer:
                        if answer.status == 200:
                            return time.monotonic()
                except aiohttp.ClientConnectionError:
                    pass
                await asyncio.sleep(POLL_S)
        raise SystemExit("the server did not become ready")

    def rss_mib(self) -> dict[str, float]:
        """Resident memory of the server's processes, by what they are."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return {
            name: _rss_mib(int(pid))
            for name, pid in zip(("engine", "rank"), [self.process.pid, *children], strict=False)
        }

    def rate(self, prompts: list[list[int]], num_tokens: int) -> float:
        """Tokens/s after the first of each stream, over all streams."""
        return asyncio.run(self._rate(prompts, num_tokens))

    async def _rate(self, prompts: list[list[int]], num_tokens: int) -> float:
        async with aiohttp.ClientSession() as session:
            spans = await asyncio.gather(*(self._stream(session, p, num_tokens) for p in prompts))
        first, last = max(span[0] for span in spans), max(span[1] for span in spans)
        return len(prompts) * (num_tokens - 1) / (last - first)

    async def _stream(
        self, session: aiohttp.ClientSession, prompt: list[int], num_tokens: int
    ) -> tuple[float, float]:
        body = {
            "model": self.name,
            "prompt": prompt,
            "max_tokens": num_tokens,
            "temperature": 0,
            "ignore_eos": True,
            "stream": True,
        }
        async with session.post(f"{self.url}/v1/completions", json=body) as answer:
            answer.raise_for_status()
            times = [time.monotonic() async for line in answer.content if line.startswith(b"data: {")]
        return times[0], times[-1]

    def close(self) -> None:
        """Drain and end."""
        self.process.terminate()
        self.process.wait(timeout=READY_LIMIT_S)


@contextmanager
def serving(model: Path) -> Iterator[Server]:
    """A server for as long as the block lasts."""
    server = Server(model)
    try:
        yield server
    finally:
        server.close()


class Peer:
    """transformers' generate, with its defaults for experts and cache, in fp32 on all cores."""

    def __init__(self, model: Path) -> None:
        self.model = transformers.AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()
        self.model.generation_config.do_sample = False

    @torch.inference_mode()
    def rate(self, prompts: list[list[int]], num_tokens: int) -> float:
        """Tokens/s after the first of each sequence, over the batch."""
        ids = torch.tensor(prompts)
        spent = [self._seconds(ids, count) for count in (1, num_tokens)]
        return len(prompts) * (num_tokens - 1) / (spent[1] - spent[0])

    def _seconds(self, ids: torch.Tensor, count: int) -> float:
        started_s = time.monotonic()
        self.model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=count,
            min_new_tokens=count,
            do_sample=False,
            temperature=None,
            top_p=None,
            pad_token_id=0,
        )
        return time.monotonic() - started_s


def measure(server: Server, peer: Peer, streams: int, rounds: int, num_tokens: int) -> Line:
    """Rounds in turn; one uncounted to warm up. Prompts differ, so that none is a prefix hit."""
    generator = torch.Generator().manual_seed(streams)
    ours, theirs = [], []
    for turn in range(rounds + 1):
        prompts = torch.randint(10, 1000, (streams, PROMPT_TOKENS), generator=generator).tolist()
        rates = server.rate(prompts, num_tokens), peer.rate(prompts, num_tokens)
        if turn:
            ours.append(rates[0])
            theirs.append(rates[1])
    return Line(
        streams=streams,
        server=statistics.median(ours),
        server_range=(min(ours), max(ours)),
        peer=statistics.median(theirs),
        peer_range=(min(theirs), max(theirs)),
        ratio=statistics.median(a / b for a, b in zip(ours, theirs, strict=True)),
    )


def _rss_mib(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) / KIB_PER_MIB


def machine() -> dict[str, object]:
    """What the figures are of."""
    info = Path("/proc/cpuinfo").read_text()
    names = [line.split(":", 1)[1].strip() for line in info.splitlines() if line.startswith("model name")]
    return {
        "cpu": names[0] if names else platform.processor(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }


def print_table(result: dict[str, object], lines: list[Line]) -> None:
    """For people."""
    table = Table("streams", "rackscale tok/s", "transformers tok/s", "ratio")
    for line in lines:
        table.add_row(str(line.streams), f"{line.server:.0f}", f"{line.peer:.0f}", f"{line.ratio:.2f}")
    console = Console()
    console.print(table)
    console.print(f"ready in {result['ready_s']:.2f} s (median); resident MiB {result['rss_mib']}")


def main() -> None:
    """Measure, print, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", type=Path, default=ROOT / "models" / "austen-moe")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--out", type=Path, default=ROOT / "bench" / "results" / "serve.json")
    options = parser.parse_args()
    transformers.logging.set_verbosity_error()
    ready_s = []
    for _ in range(options.rounds):
        with serving(options.model) as server:
            ready_s.append(server.ready_s)
    peer = Peer(options.model)
    with serving(options.model) as server:
        lines = [measure(server, peer, n, options.rounds, options.tokens) for n in BATCHES]
        rss_mib = {name: round(value) for name, value in server.rss_mib().items()}
    result: dict[str, object] = {
        "machine": machine(),
        "model": options.model.name,
        "rounds": options.rounds,
        "tokens": options.tokens,
        "lines": [asdict(line) for line in lines],
        "ready_s": statistics.median(ready_s),
        "ready_s_range": (min(ready_s), max(ready_s)),
        "rss_mib": rss_mib,
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=1) + "\n")
    if options.json:
        print(json.dumps(result))
    else:
        print_table(result, lines)


if __name__ == "__main__":
    main()
