"""rackscale in one process, for one visit: `drive_rackscale.py MODEL WORK OPTIONS`, prints JSON.

Decodes are counted over steps in which every sequence gets one token, from one step's end to the next:
engine, scheduling and sampling included. Prefill is one request, from its arrival to its first token. With
`profile` in OPTIONS it is also told where steps went."""

import gc
import itertools
import json
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from rackscale.checkpoint import Checkpoint
from rackscale.core import PlaceExperts, Request, RequestId, Sampling, StepPlan
from rackscale.runtime.answer import RankAnswer
from rackscale.runtime.inline import InlineDriver, Ranks
from rackscale.runtime.kernels.native_decoder import NativeDecoder
from rackscale.runtime.local import LocalOptions, open_local
from rackscale.specs import PoolLayout

LOW = 100  # of the token ids that are drawn
BLOCK_SIZE = 16
KIB_PER_GB = 1e9 / 1024


@dataclass(kw_only=True, slots=True)
class Step:
    """One step of all ranks. start_s, end_s: when. num_new: tokens of each row. times: seconds by operator.
    num_experts: used, over all layers."""

    start_s: float
    end_s: float
    num_new: list[int]
    tokens: list[int]
    times: dict[str, float]
    num_experts: int


@dataclass
class Watched:
    """Ranks that keep what their steps took. native: models in C++ that say where their time goes."""

    ranks: Ranks
    native: Sequence[Any]
    steps: list[Step] = field(default_factory=list)

    def perform(self, step: StepPlan) -> list[RankAnswer]:
        """As the ranks do."""
        start = time.perf_counter()
        answers = self.ranks.perform(step)
        end = time.perf_counter()
        times: Counter[str] = Counter()
        for model in self.native:
            times.update(model.take_times())
        self.steps.append(
            Step(
                start_s=start,
                end_s=end,
                num_new=[int(count) for rank in step.ranks for count in rank.num_new],
                tokens=[int(token) for answer in answers for token in answer.result.tokens],
                times=dict(times),
                num_experts=int(sum(answer.result.expert_loads for answer in answers).astype(bool).sum()),
            )
        )
        return answers

    def place(self, placement: PlaceExperts) -> None:
        """As the ranks do."""
        self.ranks.place(placement)


class Bench:
    """An open model that is asked for the work."""

    def __init__(self, driver: InlineDriver, checkpoint: Checkpoint, native: Sequence[Any]) -> None:
        self._driver, self._vocab_size = driver, checkpoint.spec.vocab_size
        self.watched = driver.ranks = Watched(driver.ranks, native)
        self._names = itertools.count()
        self._random = random.Random(time.time_ns())

    def requests(self, batch: int, prompt: int, tokens: int) -> list[Request]:
        """Greedy ones with prompts drawn anew."""
        return [
            Request(
                id=RequestId(str(next(self._names))),
                prompt=tuple(self._random.randrange(LOW, self._vocab_size) for _ in range(prompt)),
                max_tokens=tokens,
                sampling=Sampling(temperature=0.0),
            )
            for _ in range(batch)
        ]

    def decode(self, batch: int, prompt: int, tokens: int) -> list[Step]:
        """Steps of decodes of all sequences; the first of them is what the times of the others count from."""
        self.watched.steps.clear()
        self._driver.run(self.requests(batch, prompt, tokens + 1))
        steps = self.watched.steps
        full = [at for at, step in enumerate(steps) if step.num_new == [1] * batch and at]
        return [steps[full[0] - 1], *(steps[at] for at in full)]

    def prefill(self, length: int) -> tuple[float, list[Step]]:
        """Seconds, and the steps."""
        requests = self.requests(1, length, 1)
        self.watched.steps.clear()
        start = time.perf_counter()
        self._driver.run(requests)
        return time.perf_counter() - start, list(self.watched.steps)


def rate(steps: Sequence[Step]) -> float:
    """Tokens per second."""
    first, *rest = steps
    return sum(len(step.num_new) for step in rest) / (rest[-1].end_s - first.end_s)


def operators(steps: Sequence[Step], seconds: float) -> dict[str, float]:
    """Milliseconds a step by operator; `outside` is what no operator of ours says it took."""
    times: Counter[str] = Counter()
    for step in steps:
        times.update(step.times)
    inside = sum(times.values())
    in_ranks = sum(step.end_s - step.start_s for step in steps)
    parts = dict(times) | {"rest of the rank": in_ranks - inside, "engine": seconds - in_ranks}
    return {name: value / len(steps) * 1e3 for name, value in parts.items()}


def weight_bytes(checkpoint: Checkpoint) -> tuple[int, int]:
    """Of the linear layers that every token goes through, and of one routed expert."""
    dense = experts = 0
    for role, source in checkpoint.metadata.sources.items():
        if len(source.shape) < 2 or role == "embed":
            continue
        parts = [checkpoint.metadata.tensors[part.tensor] for part in checkpoint.metadata.parts(source)]
        num_bytes = sum(part.end - part.start for part in parts)
        if ".experts." in role:
            experts += num_bytes if ".experts.0." in role and role.startswith(first_moe(checkpoint)) else 0
        else:
            dense += num_bytes
    return dense, experts


def linear_operations(checkpoint: Checkpoint, num_tokens: int, num_sampled: int) -> int:
    """Of all linear layers for a step's tokens; only sampled ones go through the head."""
    moe = checkpoint.spec.moe
    assert moe is not None, "the shapes of benches have experts"
    total = 0
    for role, source in checkpoint.metadata.sources.items():
        if len(source.shape) < 2 or role == "embed":
            continue
        expert = role.split(".experts.")[1].split(".")[0] if ".experts." in role else "0"
        if int(expert) < moe.router.top_k:
            tokens = num_sampled if role == "head" else num_tokens
            total += 2 * tokens * torch.Size(source.shape).numel()
    return total


def step_gb(checkpoint: Checkpoint, steps: Sequence[Step]) -> float:
    """Weights that a step reads, each once."""
    dense, expert = weight_bytes(checkpoint)
    return (dense + expert * sum(step.num_experts for step in steps) / len(steps)) / 1e9


def first_moe(checkpoint: Checkpoint) -> str:
    """Where the roles of the first layer with experts begin."""
    number = next(number for number, layer in enumerate(checkpoint.spec.layers) if layer.moe)
    return f"layers.{number}."


def profile(bench: Bench, checkpoint: Checkpoint, work: dict[str, Any]) -> list[dict[str, object]]:
    """Where steps of each batch, and of each prompt, went."""
    found: list[dict[str, object]] = []
    for batch in work["batches"]:
        first, *steps = bench.decode(batch, work["prompt"], work["tokens"])
        seconds = steps[-1].end_s - first.end_s
        found.append(_entry(f"decode {batch}", batch, steps, seconds, checkpoint))
    for length in work["prefill"]:
        seconds, steps = bench.prefill(length)
        found.append(_entry(f"prefill {length}", length, steps, seconds, checkpoint))
    return found


def _entry(
    name: str, num_tokens: int, steps: Sequence[Step], seconds: float, checkpoint: Checkpoint
) -> dict[str, object]:
    dense, expert = weight_bytes(checkpoint)
    operations = linear_operations(checkpoint, num_tokens, len(steps[0].tokens))
    used = sum(step.num_experts for step in steps) / len(steps)
    return {
        "work": name,
        "tokens": num_tokens,
        "ms": seconds / len(steps) * 1e3,
        "operators_ms": operators(steps, seconds),
        "linear_bytes": dense + used * expert,
        "linear_operations": operations,
        "experts": used,
        "distinct_tokens": sum(len(set(step.tokens)) for step in steps)
        / max(1, sum(len(step.tokens) for step in steps)),
    }


def memory() -> dict[str, float]:
    """GB of this process: resident, proportional, and what no file is behind."""
    lines = Path("/proc/self/smaps_rollup").read_text(encoding="utf-8").splitlines()[1:]
    kib = {line.split(":")[0]: int(line.split()[1]) for line in lines}
    names = {"Rss": "resident_gb", "Pss": "proportional_gb", "Anonymous": "anonymous_gb"}
    return {name: kib[key] / KIB_PER_GB for key, name in names.items()}


def age() -> float:
    """Seconds since this process was started."""
    ticks = int(Path("/proc/self/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[19])
    return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")


def natives() -> list[Any]:
    """Models in C++ that are alive and say where their time goes."""
    models = [
        item._model  # noqa: SLF001 (nothing that is public leads from a driver to it)
        for item in gc.get_objects()
        if type(item) is NativeDecoder
    ]
    return [model for model in models if hasattr(model, "take_times")]


def main() -> None:
    path, work, options = Path(sys.argv[1]), json.loads(sys.argv[2]), json.loads(sys.argv[3])
    torch.set_num_threads(work["threads"])
    longest = max([*work["prefill"], work["prompt"] + work["tokens"]])
    sizes = LocalOptions(
        layout=(PoolLayout(num_ranks=options["ranks"]),),
        kernels=options["kernels"],
        activations=options["activations"],
        kv_gib=options["kv_gib"],
        block_size=BLOCK_SIZE,
        max_batched_tokens=max([*work["prefill"], 512]),
        max_running=max([*work["batches"], 1]),
        max_model_len=longest + 2 * BLOCK_SIZE,
        tokenizer_required=False,
    )
    start = time.perf_counter()
    with open_local(path, sizes) as model:
        visit: dict[str, object] = {"load_s": time.perf_counter() - start, "ready_s": age()}
        visit["memory_ready"] = memory()
        bench = Bench(model.driver, model.checkpoint, natives() if options["profile"] else ())
        bench.decode(1, work["prompt"], 3)
        if options["profile"]:
            visit["profile"] = profile(bench, model.checkpoint, work)
        visit["prefill"] = {length: length / bench.prefill(length)[0] for length in work["prefill"]}
        runs = {batch: bench.decode(batch, work["prompt"], work["tokens"]) for batch in work["batches"]}
        visit["decode"] = {batch: rate(steps) for batch, steps in runs.items()}
        visit["step_gb"] = {batch: step_gb(model.checkpoint, steps[1:]) for batch, steps in runs.items()}
        visit["memory"] = memory()
        print(json.dumps({"visit": visit}), flush=True)


if __name__ == "__main__":
    main()
