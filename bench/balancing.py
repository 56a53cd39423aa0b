"""Experts that move while a model serves: tokens per rank and tokens per second, before and after, in one
run.

The bundled model's routers are skewed (the n-th expert of each layer is liked less, by s ln n), so that the
first rank has nearly all the work. For the first half of the steps experts stay where they began; then the
engine looks at the measured loads, as it always does, and moves experts when that pays. Tokens
per rank are the measured loads of the experts, each divided by its copies; both are summed over windows of 50
steps.

Since the machine's speed changes from second to second, a last part puts the experts back and forth, every 50
steps, and compares the tokens per second of both placements over these turns.

    python bench/balancing.py [--ranks 2] [--redundant 8] [--skew 0.3] [--steps 1000] [--batch 64]
"""

import argparse
import json
import statistics
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from machine import machine
from rich.console import Console
from rich.table import Table

from rackscale.core import PlaceExperts, Request, RequestId, Sampling, StepPlan
from rackscale.runtime.answer import RankAnswer
from rackscale.runtime.inline import InlineDriver, Ranks
from rackscale.runtime.local import LocalOptions, open_local
from rackscale.specs import PoolLayout

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results" / "balancing.json"
WINDOW = 50
SUMMED = ("max_over_mean", "tokens_per_s")
PROMPT = 16
LOOK_EVERY = 50


@dataclass
class Watched:
    """Ranks, and what each step of decodes did."""

    ranks: Ranks
    num_ranks: int
    placement: PlaceExperts
    seconds: list[float] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    by_rank: list[np.ndarray] = field(default_factory=list)  # [layers, ranks] each
    moves: list[tuple[int, int]] = field(default_factory=list)  # at which step, how many experts

    def __post_init__(self) -> None:
        self.first = self.placement

    def perform(self, step: StepPlan) -> list[RankAnswer]:
        """As the ranks do."""
        start = time.perf_counter()
        answers = self.ranks.perform(step)
        seconds = time.perf_counter() - start
        if all((rank.num_new == 1).all() for rank in step.ranks):
            self.seconds.append(seconds)
            self.tokens.append(sum(len(rank.rows) for rank in step.ranks))
            self.by_rank.append(self._by_rank(answers))
        return answers

    def place(self, placement: PlaceExperts) -> None:
        """As the ranks do."""
        self.placement = placement
        if placement.num_moved:
            self.moves.append((len(self.seconds), placement.num_moved))
        self.ranks.place(placement)

    def _by_rank(self, answers: list[RankAnswer]) -> np.ndarray:
        place = self.placement
        loads = sum(
            answer.result.expert_loads.astype(float) for answer in answers if len(answer.result.expert_loads)
        )
        counts = place.counts.reshape(-1, place.num_experts)
        ranks = place.ranks.reshape(*counts.shape, place.most)
        shares = loads.reshape(counts.shape) / counts
        tokens = np.zeros((len(counts), self.num_ranks))
        for copy in range(place.most):
            layers, experts = np.nonzero(counts > copy)
            np.add.at(tokens, (layers, ranks[layers, experts, copy]), shares[layers, experts])
        return tokens


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", type=Path, default=ROOT / "models" / "austen-moe")
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--redundant", type=int, default=8)
    parser.add_argument("--skew", type=float, default=0.3)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--turns", type=int, default=9)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    sizes = LocalOptions(
        layout=(PoolLayout(num_ranks=options.ranks, redundant_experts=options.redundant),),
        block_size=16,
        max_batched_tokens=512,
        max_running=options.batch,
        router_skew=options.skew,
        rebalance_every=0,
    )
    with open_local(options.model, sizes) as local:
        experts = local.driver.engine.experts(0)
        watched = Watched(local.driver.ranks, options.ranks, experts.command())
        local.driver.ranks = watched
        half = options.steps // 2
        for phase in ("still", "moving"):
            experts.every = 0 if phase == "still" else LOOK_EVERY
            before = len(watched.seconds)
            while len(watched.seconds) < before + half:
                local.driver.run(requests(options.batch, len(watched.seconds)))
        turns = in_turns(options, local.driver, watched, experts.command())
    report(options, watched, half, turns)


def in_turns(
    options: argparse.Namespace, driver: InlineDriver, watched: Watched, balanced: PlaceExperts
) -> dict[str, float]:
    """Median tokens per second of windows with experts where they began, and with those that the engine
    chose."""
    driver.engine.experts(0).every = 0
    rates: dict[str, list[float]] = {"before": [], "after": []}
    for number in range(2 * options.turns):
        name, placement = (("before", watched.first), ("after", balanced))[number % 2]
        watched.place(placement)
        start = len(watched.seconds)
        driver.run(requests(options.batch, number, WINDOW + 1))
        rates[name].append(sum(watched.tokens[start:]) / sum(watched.seconds[start:]))
    medians = {name: statistics.median(values) for name, values in rates.items()}
    return {**medians, "ratio": medians["after"] / medians["before"]}


def requests(batch: int, seed: int, tokens: int = 128) -> list[Request]:
    return [
        Request(
            id=RequestId(f"{seed}-{row}"),
            prompt=tuple((seed * 31 + row * 131 + at * 17) % 2000 + 2 for at in range(PROMPT)),
            max_tokens=tokens,
            sampling=Sampling(temperature=1.0, seed=seed + row),
        )
        for row in range(batch)
    ]


def report(options: argparse.Namespace, watched: Watched, half: int, turns: dict[str, float]) -> None:
    windows = []
    for start in range(0, 2 * half - WINDOW + 1, WINDOW):
        part = slice(start, start + WINDOW)
        tokens = sum(watched.by_rank[part])
        windows.append(
            {
                "steps": [start, start + WINDOW],
                "max_over_mean": float((tokens.max(1) / tokens.mean(1)).mean()),
                "tokens_per_s": sum(watched.tokens[part]) / sum(watched.seconds[part]),
            }
        )
    table = Table("steps", "max/mean tokens per rank", "tokens/s")
    for window in windows:
        first, last = window["steps"]
        table.add_row(f"{first}-{last}", f"{window['max_over_mean']:.3f}", f"{window['tokens_per_s']:.0f}")
    still = [window for window in windows if window["steps"][1] <= half]
    moved = [window for window in windows if window["steps"][0] >= half + 2 * WINDOW]
    summary = {
        name: {
            key: statistics.median(window[key] for window in part)
            for key in ("max_over_mean", "tokens_per_s")
        }
        for name, part in (("before", still), ("after", moved))
    }
    console = Console()
    console.print(table)
    console.print(f"moves (step, experts): {watched.moves}; medians {summary}")
    console.print(f"in turns, tokens/s: {turns}")
    result = {
        "machine": machine(),
        "ranks": options.ranks,
        "redundant_experts": options.redundant,
        "router_skew": options.skew,
        "batch": options.batch,
        "moves": watched.moves,
        "medians": summary,
        "in_turns": turns,
        "windows": windows,
    }
    options.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
