"""What the control plane costs a step: one rank decodes for n requests, and nothing else happens.

A step is `Engine.handle(StepDone)`, which takes in the sampled tokens, gives them out (`Emit`) and plans
the next step (`RunStep`), while another one is in flight. Sequences differ in length, so in every step
about one in `block_size` needs a new block. The breakdown comes from a second run under a profiler: its
shares are good, its times are not.

    python bench/control_plane.py [--running 1,8,64,256] [--steps 400] [--json] [--out FILE]
"""

import argparse
import cProfile
import json
import os
import platform
import pstats
import statistics
import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from rackscale.core import (
    Arrive,
    Command,
    Event,
    RankResult,
    Request,
    RequestId,
    RunStep,
    Seconds,
    StepDone,
    StepPlan,
    TokenId,
    column,
)
from rackscale.engine import build
from rackscale.specs import DeploymentSpec, GroupSpec

RUNNING = (1, 8, 64, 256, 1024, 4096, 8192)
BLOCK_SIZE = 16
PROMPT = 64  # the shortest; the longest has a block more
STOP = TokenId(1)
SPARE = 32  # tokens that a sequence may make beside those of the timed steps
RESULTS = Path(__file__).parent / "results" / "control_plane.json"
PARTS = {  # the functions that a step consists of, by file and name
    "record tokens": ("engine.py", "_record"),
    "fill step": ("scheduler.py", "fill_step"),
    "find gaps": ("rows.py", "gaps"),
    "grant blocks": ("rank_state.py", "_grant"),
    "seal plan": ("rank_state.py", "_seal"),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Line:
    """A line of the table. shares: of a step's time, by part."""

    running: int
    steps: int
    us_per_step: float  # the median
    us_per_step_p90: float
    us_per_request: float
    shares: dict[str, float]


class Decoding:
    """An engine with n running requests, and steps that can be timed one by one."""

    def __init__(self, running: int, steps: int) -> None:
        group = GroupSpec(
            num_blocks=running * (2 + (PROMPT + steps + SPARE) // BLOCK_SIZE),
            max_running=running,
            max_batched_tokens=running * (PROMPT + BLOCK_SIZE),  # all prompts enter one step
        )
        self.engine = build(
            DeploymentSpec(
                model="bench",
                groups=(group,),
                block_size=BLOCK_SIZE,
                max_model_len=PROMPT + steps + SPARE,
                max_waiting=running,
            )
        )
        self._flights: deque[StepPlan] = deque()
        for number in range(running):
            request = Request(
                id=RequestId(f"request-{number}"),
                prompt=tuple(TokenId(10 + number + at) for at in range(PROMPT + number % BLOCK_SIZE)),
                max_tokens=steps + SPARE,
                stop_token_ids=(STOP,),
            )
            self._handle(Arrive(request=request))
        while not all(self._num_samples(plan) == running for plan in self._flights):
            self._handle(self._answer())

    def steps(self, count: int) -> Iterator[float]:
        """Take steps. Gives the seconds of each."""
        for _ in range(count):
            event = self._answer()
            start = time.perf_counter()
            commands = self.engine.handle(event, Seconds(0.0))
            yield time.perf_counter() - start
            self._note(commands)

    def _answer(self) -> StepDone:
        plan = self._flights.popleft()
        tokens = np.full(self._num_samples(plan), 7, dtype=np.int32)
        result = RankResult(tokens=tokens, expert_loads=column())
        return StepDone(group=plan.group, plan=plan.plan, ranks=(result,))

    def _handle(self, event: Event) -> None:
        self._note(self.engine.handle(event, Seconds(0.0)))

    def _note(self, commands: Sequence[Command]) -> None:
        self._flights.extend(command.plan for command in commands if isinstance(command, RunStep))

    @staticmethod
    def _num_samples(plan: StepPlan) -> int:
        return int(plan.ranks[0].samples.sum())


def measure(running: int, steps: int) -> Line:
    seconds = list(Decoding(running, steps).steps(steps))[steps // 10 :]
    median_us = statistics.median(seconds) * 1e6
    return Line(
        running=running,
        steps=len(seconds),
        us_per_step=median_us,
        us_per_step_p90=statistics.quantiles(seconds, n=10)[-1] * 1e6,
        us_per_request=median_us / running,
        shares=shares(running, steps),
    )


def shares(running: int, steps: int) -> dict[str, float]:
    decoding = Decoding(running, steps)
    profile = cProfile.Profile()
    profile.enable()
    for _ in decoding.steps(steps):
        pass
    profile.disable()
    times = {
        (Path(file).name, name): entry[3]  # cumulative
        for (file, _, name), entry in pstats.Stats(profile).stats.items()  # type: ignore[attr-defined] # typeshed lacks it
    }
    whole = times["engine.py", "handle"]
    parts = {part: times[where] / whole for part, where in PARTS.items()}
    return {**parts, "else": 1.0 - sum(parts.values())}


def machine() -> dict[str, object]:
    names = [
        line.split(":", 1)[1].strip()
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        if line.startswith("model name")
    ]
    return {
        "cpu": names[0] if names else platform.processor(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "numpy": np.__version__,
    }


def print_table(lines: list[Line]) -> None:
    heads = [f"{part:>14}" for part in lines[0].shares]
    print(f"{'running':>8}{'us/step':>10}{'p90':>10}{'us/request':>12}", *heads)
    for line in lines:
        parts = [f"{share:14.0%}" for share in line.shares.values()]
        print(
            f"{line.running:8}{line.us_per_step:10.0f}{line.us_per_step_p90:10.0f}"
            f"{line.us_per_request:12.3f}",
            *parts,
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--running", default=",".join(map(str, RUNNING)), help="requests, comma-separated")
    parser.add_argument("--steps", type=int, default=400, help="steps to time at each size")
    parser.add_argument("--json", action="store_true", help="print the results as JSON instead of a table")
    parser.add_argument("--out", type=Path, default=RESULTS, help="where the JSON goes")
    options = parser.parse_args()
    lines = []
    for running in map(int, options.running.split(",")):
        lines.append(measure(running, options.steps))
        print(f"{running} running: {lines[-1].us_per_step:.0f} us a step", file=sys.stderr)
    text = json.dumps({"machine": machine(), "lines": [asdict(line) for line in lines]}, indent=1)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(text + "\n", encoding="utf-8")
    if options.json:
        print(text)
    else:
        print_table(lines)


if __name__ == "__main__":
    main()
