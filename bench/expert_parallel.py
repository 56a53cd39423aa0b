"""Two ranks that share the experts against one rank with two threads: the same cores, the same sequences.

The model has the shape of OLMoE's layers and random weights (1.6 GB of experts by default). Both layouts are
open at once and take turns, round by round; a round decodes the same number of tokens for as many sequences.
Where the time of a step of the two ranks goes is what the ranks themselves say: computing, waiting for the
other one, copying.

    python bench/expert_parallel.py [--layers 2] [--batch 16] [--rounds 7] [--tokens 24] [--out FILE]
"""

import argparse
import itertools
import json
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from machine import machine
from random_model import VOCAB, olmoe_shaped
from rich.console import Console
from rich.table import Table

from rackscale.core import PlaceExperts, Request, RequestId, Sampling, StepPlan
from rackscale.runtime.answer import RankAnswer
from rackscale.runtime.inline import InlineDriver, Ranks
from rackscale.runtime.local import LocalOptions, open_local
from rackscale.specs import PoolLayout

RESULTS = Path(__file__).parent / "results" / "expert_parallel.json"
PROMPT = 8
WARM_UP_TOKENS = 4


@dataclass
class Watched:
    """Ranks, and how long each step of decodes took and went into."""

    ranks: Ranks
    step_s: list[float] = field(default_factory=list)
    answers: list[list[RankAnswer]] = field(default_factory=list)

    def perform(self, step: StepPlan) -> list[RankAnswer]:
        """As the ranks do."""
        start = time.perf_counter()
        answers = self.ranks.perform(step)
        if all((rank.num_new == 1).all() for rank in step.ranks):
            self.step_s.append(time.perf_counter() - start)
            self.answers.append(answers)
        return answers

    def place(self, placement: PlaceExperts) -> None:
        """As the ranks do."""
        self.ranks.place(placement)


def requests(batch: int, tokens: int, names: Iterator[int]) -> list[Request]:
    number = next(names)
    return [
        Request(
            id=RequestId(f"{number}-{row}"),
            prompt=tuple((number * 997 + row * 131 + at * 17) % (VOCAB - 2) + 2 for at in range(PROMPT)),
            max_tokens=tokens,
            sampling=Sampling(temperature=0.0),
        )
        for row in range(batch)
    ]


def watch(driver: InlineDriver) -> Watched:
    """From here on its steps are timed."""
    watched = Watched(driver.ranks)
    driver.ranks = watched
    return watched


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--tokens", type=int, default=24)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        model = olmoe_shaped(Path(folder), options.layers)
        layouts = {}
        for name, num_ranks in (("two ranks", 2), ("one rank, two threads", 1)):
            sizes = LocalOptions(
                layout=(PoolLayout(num_ranks=num_ranks),),
                block_size=16,
                max_batched_tokens=256,
                max_running=options.batch,
                max_model_len=128,
                tokenizer_required=False,
            )
            layouts[name] = stack.enter_context(open_local(model, sizes)).driver
        names = itertools.count()
        for driver in layouts.values():
            driver.run(requests(options.batch, WARM_UP_TOKENS, names))
        watched = {name: watch(driver) for name, driver in layouts.items()}
        for _ in range(options.rounds):
            round_requests = requests(options.batch, options.tokens, names)
            outputs = [
                {key: done.token_ids for key, done in driver.run(round_requests).items()}
                for driver in layouts.values()
            ]
            assert outputs[0] == outputs[1], "both say the same"
    report(options, watched)


def median_of(name: str, steps: list[list[RankAnswer]]) -> float:
    """Over the steps, of the mean over the ranks."""
    return statistics.median(
        statistics.mean(getattr(answer.times, name) for answer in answers) for answers in steps
    )


def report(options: argparse.Namespace, watched: dict[str, Watched]) -> None:
    medians = {name: statistics.median(item.step_s) for name, item in watched.items()}
    two = watched["two ranks"]
    parts = {
        part: statistics.median(
            statistics.mean(getattr(answer.times, f"{part}_s") for answer in answers)
            for answers in two.answers
        )
        for part in ("step", "wait", "copy")
    }
    parts["compute"] = parts["step"] - parts["wait"] - parts["copy"]
    parts["outside of ranks"] = medians["two ranks"] - parts["step"]
    ratio = medians["two ranks"] / medians["one rank, two threads"]
    table = Table("layout", "step, ms (median)", "tokens/s")
    for name, median in medians.items():
        table.add_row(name, f"{median * 1e3:.2f}", f"{options.batch / median:.0f}")
    console = Console()
    console.print(table)
    console.print(f"two ranks take {ratio:.3f} of the time of one; a step of theirs, mean of both, in ms:")
    console.print(", ".join(f"{name} {seconds * 1e3:.2f}" for name, seconds in parts.items()))
    result = {
        "machine": machine(),
        "layers": options.layers,
        "batch": options.batch,
        "steps": len(two.step_s),
        "step_ms": {name: median * 1e3 for name, median in medians.items()},
        "ratio_two_ranks_to_one": ratio,
        "two_ranks_ms": {name: seconds * 1e3 for name, seconds in parts.items()},
    }
    options.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
