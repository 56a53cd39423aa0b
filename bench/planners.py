"""Planners on the same rows of InferenceX, each from the row's configuration alone: error, time, memory, rows
answered and refused; then the time and memory of one whole plan.

aiconfigurator is installed once into an environment of its own in the cache folder. It gets each row's
layout, mean lengths and concurrency as rackscale reads them. Its predictions are cross-validated: each
is by a fit that has not seen the row's configuration. Its time and memory are those of the kept fit.

    python bench/planners.py [--source FILE.csv] [--rows N] [--no-plan] [--again] [--out FILE]
"""

import argparse
import importlib.metadata
import json
import re
import resource
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from machine import machine
from peers.cache import DEFAULT, Cache
from peers.visit import MissingError, watched
from planners_report import METRICS, errors, print_report

from rackscale.plan.inferencex import Rows, read_rows

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "planners.json"
AICONFIGURATOR = "0.12.0"
TIMED = 24  # records
PEER = f"aiconfigurator-{AICONFIGURATOR}"  # in the cache
PLANS = {
    "rackscale": (
        "plan --model kimi-k2.5 --weights nvfp4 --system gb200-nvl72 --isl 8192 --osl 1024"
        " --interactivity 36.3 --json"
    ),
    "aiconfigurator": (
        "cli default --model-path nvidia/Kimi-K2.5-NVFP4 --system gb200 --total-gpus 72 --backend trtllm"
        " --isl 8192 --osl 1024 --tpot 27.5 --ttft 5000 --top-n 1 --no-color"
    ),
}
Entry = dict[str, Any]
Answers = list[dict[str, Any]]
Peer = tuple[Entry, Answers] | tuple[None, None]
NUMBERS_IN_REASONS = re.compile(r"\b\d+(\.\d+)*(rc\d+)?\b")


def records(rows: Rows) -> list[dict[str, Any]]:
    """What aiconfigurator's adapter reads of each row. Layouts are those that rackscale takes it for: rows of
    one node say wrong numbers of chips, and some of several do not tell how experts and attention lie.
    Concurrency is the nearest that the decode ranks share evenly, since the adapter refuses others."""
    made: list[dict[str, Any]] = [{} for _ in rows.rows]
    for numbers, case in rows.cases():
        for place, number in enumerate(numbers):
            row, apart = rows.rows[number], bool(case.disaggregated[place])
            config: dict[str, Any] = {
                name: row[name].lower() for name in ("hardware", "framework", "model", "precision")
            }
            config |= {"spec_method": row["spec_method"] or "none", "disagg": apart}
            seats = 1
            for pool, work, groups in (
                ("prefill", case.prefill, case.prefill_groups),
                ("decode", case.decode, case.decode_groups),
            ):
                ranks, tp = int(work.layouts.ranks[place]), int(work.layouts.tp[place])
                alone = tp == 1 and ranks > 1
                workers = int(groups[place])
                seats = workers * (ranks if alone else 1)
                config |= {
                    f"{pool}_tp": tp,
                    f"{pool}_ep": int(work.layouts.ep[place]),
                    f"{pool}_dp_attention": alone,
                    f"{pool}_num_workers": workers,
                    f"num_{pool}_gpu": ranks * workers,
                }
            concurrency = max(round(float(row["conc"]) / seats), 1) * seats
            benchmark = {"isl": round(case.isl[place]), "osl": round(case.osl[place]), "conc": concurrency}
            made[number] = {"config": config, "benchmark": benchmark}
    return made


def sample(rows: Rows, count: int | None) -> list[int]:
    """Numbers of so many rows, evenly from those of each hardware, regime and engine; of all by default."""
    kinds = [tuple(row[name] for name in ("hardware", "is_multinode", "framework")) for row in rows.rows]
    order = sorted(range(len(kinds)), key=lambda number: (kinds[number], number))
    count = len(order) if count is None else min(count, len(order))
    return sorted(order[len(order) * at // count] for at in range(count))


def visit(command: Sequence[str | Path]) -> dict[str, Any]:
    """What a drive_*.py script says in its last line of JSON. Raises MissingError where it fails."""
    text, peak_gb = watched(command, {"OMP_NUM_THREADS": "1"})
    line = next(line for line in reversed(text.splitlines()) if line.startswith('{"visit"'))
    found: dict[str, Any] = json.loads(line)["visit"]
    return {**found, "peak_mb": peak_gb * 1e3}


def timed_plan(command: Sequence[str | Path]) -> dict[str, Any]:
    """Seconds of a whole plan with its imports, on the clock and of the processor, and the most MB that it
    was resident with."""
    start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    _, peak_gb = watched(command, {"OMP_NUM_THREADS": "1"})
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    words = [Path(str(command[0])).name, *(str(word) for word in command[1:])]
    return {
        "command": " ".join(words),
        "seconds": time.perf_counter() - start,
        "cpu_s": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
        "peak_mb": peak_gb * 1e3,
    }


def refused(answers: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Rows by reason, numbers in which do not tell reasons apart."""
    reasons = Counter(
        NUMBERS_IN_REASONS.sub("N", str(answer["refused"])) for answer in answers if "refused" in answer
    )
    return dict(reasons.most_common())


def groups_of(rows: Rows, chosen: Sequence[int]) -> dict[str, np.ndarray]:
    """Which of the chosen rows are of one node, of several, and of several without speculation."""
    several = np.char.lower(rows.column("is_multinode")) == "true"
    plain = rows.column("spec_method") == "none"
    masks = {
        "all": np.ones(len(several), dtype=bool),
        "one node": ~several,
        "several nodes": several,
        "one node, no speculation": ~several & plain,
        "several nodes, no speculation": several & plain,
    }
    return {name: mask[list(chosen)] for name, mask in masks.items()}


def table_of(
    rows: Rows, chosen: Sequence[int], found: Mapping[str, Sequence[Mapping[str, Any]]]
) -> dict[str, Any]:
    """Errors of each planner by group: on all rows that it answers, and on those that all answer."""
    truth = {name: rows.truth[name][list(chosen)] for name in METRICS}
    values = {
        planner: {name: np.array([answer.get(name, np.nan) for answer in answers]) for name in METRICS}
        for planner, answers in found.items()
    }
    answered = {planner: np.isfinite(numbers["tpot"]) for planner, numbers in values.items()}
    everywhere = np.logical_and.reduce(list(answered.values()))
    return {
        planner: {
            group: {
                "rows": int(mask.sum()),
                "answered": int((mask & answered[planner]).sum()),
                "own": errors(truth, numbers, mask & answered[planner]),
                "common": errors(truth, numbers, mask & everywhere),
            }
            for group, mask in groups_of(rows, chosen).items()
        }
        for planner, numbers in values.items()
    }


def lines_of(chosen: Sequence[int], found: Mapping[str, Answers]) -> str:
    """Every prediction as CSV; empty where there is none. row: of those that can be predicted, from 0."""
    lines = [",".join(["row", *(f"{planner} {name}" for planner in found for name in METRICS)])]
    for place, number in enumerate(chosen):
        answers = [answers[place] for answers in found.values()]
        cells = [f"{answer[name]:.4g}" if name in answer else "" for answer in answers for name in METRICS]
        lines.append(",".join([str(number), *cells]))
    return "\n".join(lines) + "\n"


def ask_aiconfigurator(cache: Cache, given: Sequence[Mapping[str, Any]], *, again: bool) -> Entry:
    """Answers to all records. Runs repeated on another day are the same record, which is asked once; answers
    are kept in the cache. Raises MissingError where it fails as a whole."""
    path = cache.path / f"{PEER}-answers.json"
    kept: dict[str, Any] = {}
    if path.exists() and not again:
        kept = json.loads(path.read_text(encoding="utf-8"))
    texts = [json.dumps(record, sort_keys=True) for record in given]
    distinct = list(dict.fromkeys(texts))
    new = [text for text in distinct if text not in kept]
    if new:
        kept |= dict(zip(new, drive_aiconfigurator(cache, new)["answers"], strict=True))
        path.write_text(json.dumps(kept), encoding="utf-8")
    return {"distinct": len(distinct), "asked_now": len(new), "answers": [kept[text] for text in texts]}


def drive_aiconfigurator(cache: Cache, texts: Sequence[str]) -> Entry:
    """What the driver says of these records, in a new process of the peer's own environment."""
    python = cache.environment(PEER, [f"aiconfigurator=={AICONFIGURATOR}"])
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        file.write(f"[{','.join(texts)}]")
        file.flush()
        return visit((python, "-P", HERE / "peers" / "drive_aiconfigurator.py", file.name))


def time_aiconfigurator(cache: Cache, given: Sequence[Mapping[str, Any]]) -> Entry:
    """Processor's seconds for a record, of some that are chosen evenly, and what it has in memory then."""
    distinct = list(dict.fromkeys(json.dumps(record, sort_keys=True) for record in given))
    count = min(TIMED, len(distinct))
    chosen = [distinct[len(distinct) * at // count] for at in range(count)]
    found = drive_aiconfigurator(cache, chosen)
    seconds = [answer["cpu_s"] for answer in found.pop("answers")]
    return {
        **found,
        "timed": count,
        "row_cpu_s": statistics.median(seconds),
        "mean_cpu_s": statistics.fmean(seconds),
    }


def counts(answers: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """How many rows were answered from what, and refused why."""

    def saying(name: str, value: object) -> int:
        return sum(answer.get(name) == value for answer in answers)

    return {
        "from_silicon": saying("mode", "SILICON"),
        "from_hybrid": saying("mode", "HYBRID"),
        "all_to_all_of_another_width": saying("all_to_all_of_another_width", value=True),
        "cache_too_small": saying("cache_too_small", value=True),
        "data": dict(Counter(answer["data"] for answer in answers if "data" in answer)),
        "refused": refused(answers),
    }


def ask_rackscale(
    source: Path, chosen: Sequence[int], theirs: Callable[[], Peer]
) -> tuple[Entry, Answers, Peer]:
    """Its entry and cross-validated answers, and what the peer did between two measurements of its time."""
    command = (sys.executable, "-P", HERE / "peers" / "drive_planner.py", source, json.dumps(chosen))
    first = visit(command)
    peer = theirs()
    second = visit(command)
    entry = {
        "import_s": first["import_s"],
        "peak_mb": first["peak_mb"],
        "timed": len(chosen),
        "row_cpu_s": statistics.median([*first["row_cpu_s"], *second["row_cpu_s"]]),
        "mean_cpu_s": min(first["mean_cpu_s"], second["mean_cpu_s"]),
        "versions": {"rackscale": importlib.metadata.version("rackscale")},
    }
    return entry, visit((*command, "--cross-validate"))["answers"], peer


def measure(options: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """Both planners on the rows, and a plan by each; and every prediction as CSV."""
    cache, missing = Cache(options.cache), dict[str, str]()
    rows = read_rows(options.source)
    chosen = sample(rows, options.rows)
    given = records(rows)
    commands: dict[str, list[str | Path]] = {"rackscale": [sys.executable, "-m", "rackscale.cli"]}

    def theirs() -> Peer:
        try:
            asked = [given[number] for number in chosen]
            found = ask_aiconfigurator(cache, asked, again=options.again)
            found |= time_aiconfigurator(cache, asked)
        except MissingError as error:
            missing["aiconfigurator"] = str(error)
            return None, None
        commands["aiconfigurator"] = [cache.path / PEER / "bin" / "aiconfigurator"]
        answers = found.pop("answers")
        return {**found, **counts(answers)}, answers

    ours, own_answers, (entry, peer_answers) = ask_rackscale(options.source, chosen, theirs)
    planners = {"rackscale": {**ours, "refused": dict(rows.skipped)}}
    found = {"rackscale": own_answers}
    if entry is not None and peer_answers is not None:
        planners["aiconfigurator"], found["aiconfigurator"] = entry, peer_answers
    for planner, command in commands.items() if options.plan else ():
        try:
            planners[planner]["plan"] = timed_plan([*command, *PLANS[planner].split()])
        except MissingError as error:
            missing[f"{planner}, plan"] = str(error)
    result = {
        "machine": machine(),
        "missing": missing,
        "source": options.source.name,
        "rows": len(rows.rows) + sum(rows.skipped.values()),
        "asked": len(chosen),
        "planners": planners,
        "errors": table_of(rows, chosen, found),
    }
    return result, lines_of(chosen, found)


def main() -> None:
    source = Path(str(resources.files("rackscale.plan") / "data" / "inferencex_dsr1.csv"))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--source", type=Path, default=source, help="rows as InferenceX exports them")
    parser.add_argument("--rows", type=int, help="so many, evenly from all kinds, for a trial")
    parser.add_argument("--no-plan", dest="plan", action="store_false", help="only rows")
    parser.add_argument("--again", action="store_true", help="do not use kept answers of aiconfigurator")
    parser.add_argument("--cache", type=Path, default=DEFAULT, help="where the peer is kept")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    start = time.perf_counter()
    found, lines = measure(options)
    result = {"when": time.strftime("%F %T"), "seconds": time.perf_counter() - start, **found}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    options.out.with_suffix(".csv").write_text(lines, encoding="utf-8")
    print_report(result)


if __name__ == "__main__":
    main()
