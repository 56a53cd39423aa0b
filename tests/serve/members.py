"""Workers and a frontend that find each other, each in a process of its own."""

import os
import random
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from live_server import NAME, LiveServer, free_port, wait_until

NUM_PROMPTS = 8
PREFIX = 320  # tokens: worth more to a router than what the workers do at the moment


class Member(LiveServer):
    """A worker or a frontend. before: words in front of its command, such as those that enter a namespace."""

    def __init__(
        self, verb: Sequence[str], folder: Path, environment: Mapping[str, str], before: Sequence[str] = ()
    ) -> None:
        self.port = free_port()
        self.log_path = folder / f"{verb[0]}-{self.port}.txt"
        self.healths, self.secure = [], None
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("DYN_")}
        with self.log_path.open("wb") as log:
            self.process = subprocess.Popen(
                [*before, sys.executable, "-m", "rackscale.cli", *verb, "--port", str(self.port)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
                env={**inherited, "OMP_NUM_THREADS": "1", **environment},
            )

    def wait_ready(self) -> "Member":
        wait_until(lambda: self.status() == 200, f"{self.log_path.name} to be ready")
        return self

    def story(self, *, chunks: Any = None, **fields: object) -> tuple[str, int, int]:
        """A seeded stream's whole text, and how many tokens prompt and output had.

        chunks: what to do when the first one has come.
        """
        text, usage = "", {}
        options = {"seed": 7, "presence_penalty": 0.5, "stream_options": {"include_usage": True}}
        with self.stream(**options, **fields) as parts:
            for part in parts:
                if chunks is not None:
                    chunks, then = None, chunks
                    then()
                assert "error" not in part, part
                text += "".join(choice["text"] for choice in part["choices"])
                usage = part.get("usage") or usage
        return text, usage["prompt_tokens"], usage["completion_tokens"]


def worker_words(model: Path, discovery: str, *options: str) -> list[str]:
    words = ["serve", str(model), "--mixed", "1", "--served-name", NAME, "--no-frontend"]
    return [*words, "--discovery", discovery, *options]


def who_speaks(workers: Sequence[Member]) -> Member:
    """The worker that makes tokens now; its gauges would say it a moment too late."""

    def spoken() -> list[float]:
        return [worker.metric("rackscale_output_tokens_total") for worker in workers]

    before = spoken()
    now = wait_until(lambda: (now := spoken()) != before and now, "a token")
    (speaker,) = (worker for worker, was, num in zip(workers, before, now, strict=True) if num > was)
    return speaker


def random_prompts(seed: int, vocab_size: int) -> list[list[int]]:
    draw = random.Random(seed)
    return [[draw.randrange(vocab_size) for _ in range(PREFIX)] for _ in range(NUM_PROMPTS)]


def cached_tokens(frontend: Member, prompt: list[int]) -> int:
    answer = frontend.complete(prompt=prompt, max_tokens=1)
    assert answer.status == 200, answer.body
    return answer.json["usage"]["prompt_tokens_details"]["cached_tokens"]


def check_prefixes_are_found(frontend: Member, workers: Sequence[Member], vocab_size: int) -> None:
    """Requests that share a prefix go where it is: by chance alone half of them would."""
    prompts = random_prompts(seed=frontend.port, vocab_size=vocab_size)
    before = [worker.metric("rackscale_prefix_hit_tokens_total") for worker in workers]
    with ThreadPoolExecutor(NUM_PROMPTS) as pool:  # at once, so that they spread
        list(pool.map(lambda prompt: cached_tokens(frontend, prompt), prompts))
    found = [cached_tokens(frontend, [*prompt, number]) for number in range(3) for prompt in prompts]
    assert sum(cached == PREFIX for cached in found) >= 0.8 * len(found), found
    wait_until(lambda: all(hit > 0 for hit in hits(workers, before)), "hits at every worker")


def hits(workers: Sequence[Member], before: Sequence[float]) -> list[float]:
    """Prefix tokens that each worker has found since."""
    now = [worker.metric("rackscale_prefix_hit_tokens_total") for worker in workers]
    return [num - was for num, was in zip(now, before, strict=True)]
