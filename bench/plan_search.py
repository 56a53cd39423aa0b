"""How many layouts a second the search looks at: Kimi K2 Thinking on a rack of 72 GB200.

    python bench/plan_search.py [--model M] [--system S] [--repeat N] [--json]

Every run is a process's first: nothing is kept from the run before. Seconds are the processor's, of one core;
the peak of resident memory is that of the whole process, its imports in it.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time

MIB = 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", default="kimi-k2-thinking")
    parser.add_argument("--system", default="gb200-nvl72")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--once", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.once:
        print(json.dumps(once(options.model, options.system)))
        return
    words = [sys.executable, __file__, "--once", "--model", options.model, "--system", options.system]
    threads = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    runs = [
        json.loads(subprocess.run(words, check=True, capture_output=True, env=os.environ | threads).stdout)
        for _ in range(options.repeat)
    ]
    best = min(runs, key=lambda run: run["search_cpu_s"])
    if options.json:
        print(json.dumps(best))
        return
    for name, value in best.items():
        print(f"{name:24} {value:,.6g}")


def once(model: str, system: str) -> dict[str, float]:
    started = time.perf_counter()
    from rackscale.plan.planner import plan  # noqa: PLC0415 (its import is timed)
    from rackscale.plan.question import Question  # noqa: PLC0415 (the same)
    from rackscale.plan.search import search  # noqa: PLC0415 (the same)
    from rackscale.specs.catalog import load_model, load_system  # noqa: PLC0415 (the same)

    imported = time.perf_counter()
    question = Question(
        model=load_model(model), system=load_system(system), isl=8192, osl=1024, interactivity=36.3
    )
    wall, processor = time.perf_counter(), time.process_time()
    frontier = search(question)
    search_s, search_cpu_s = time.perf_counter() - wall, time.process_time() - processor
    wall, processor = time.perf_counter(), time.process_time()
    plan(question)
    return {
        "import_s": imported - started,
        "layouts": frontier.searched,
        "search_s": search_s,
        "search_cpu_s": search_cpu_s,
        "layouts_per_cpu_s": frontier.searched / search_cpu_s,
        "plan_s": time.perf_counter() - wall,
        "plan_cpu_s": time.process_time() - processor,
        "peak_rss_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / MIB,
    }


if __name__ == "__main__":
    main()
