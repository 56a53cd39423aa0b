"""rackscale on a file's rows: `drive_planner.py FILE.csv NUMBERS [--cross-validate]`, prints JSON.

NUMBERS: of the rows to answer for, a JSON list. Without the flag the kept fit answers, once for all rows and
once for each row alone; with it five fits answer, each for rows whose configuration it has not seen.
Times are of the processor, since other processes may be busy."""

import json
import sys
import time
from pathlib import Path


def main() -> None:
    path, chosen, crossed = Path(sys.argv[1]), json.loads(sys.argv[2]), "--cross-validate" in sys.argv
    start = time.process_time()
    from rackscale.plan.inferencex import Rows, read_rows  # noqa: PLC0415 (timed)
    from rackscale.plan.validate import cross_validated, predict  # noqa: PLC0415 (timed)

    import_s = time.process_time() - start
    rows = read_rows(path)
    start = time.process_time()
    found = cross_validated(rows) if crossed else predict(rows)
    mean_cpu_s = (time.process_time() - start) / len(rows.rows)
    alone_s = []
    for number in () if crossed else chosen:
        one = Rows(rows=[rows.rows[number]], skipped={}, truth={})
        start = time.process_time()
        predict(one)
        alone_s.append(time.process_time() - start)
    visit = {
        "import_s": import_s,
        "mean_cpu_s": mean_cpu_s,
        "row_cpu_s": alone_s,
        "answers": [
            {name: float(values[number]) for name, values in found.value.items()}
            | {f"{name}_low": float(values[number]) for name, values in found.low.items()}
            | {f"{name}_high": float(values[number]) for name, values in found.high.items()}
            for number in chosen
        ],
    }
    print("\n" + json.dumps({"visit": visit}), flush=True)


if __name__ == "__main__":
    main()
