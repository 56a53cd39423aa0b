"""rackscale on a file's rows: `drive_planner.py FILE.csv NUMBERS [--cross-validate]`, prints JSON.

NUMBERS: of the rows to answer for, a JSON list. Without the flag the kept fit answers, once for all rows and
once for each row alone; with it five fits answer, each for rows whose configuration it has not seen."""

import json
import sys
import time
from pathlib import Path


def main() -> None:
    path, chosen, crossed = Path(sys.argv[1]), json.loads(sys.argv[2]), "--cross-validate" in sys.argv
    start = time.perf_counter()
    from rackscale.plan.inferencex import Rows, read_rows  # noqa: PLC0415 (timed)
    from rackscale.plan.validate import cross_validated, predict  # noqa: PLC0415 (timed)

    import_s = time.perf_counter() - start
    rows = read_rows(path)
    start = time.perf_counter()
    found = cross_validated(rows) if crossed else predict(rows)
    all_s = time.perf_counter() - start
    alone_s = []
    for number in () if crossed else chosen:
        one = Rows(rows=[rows.rows[number]], skipped={}, truth={})
        start = time.perf_counter()
        predict(one)
        alone_s.append(time.perf_counter() - start)
    visit = {
        "import_s": import_s,
        "all_s": all_s,
        "alone_s": alone_s,
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
