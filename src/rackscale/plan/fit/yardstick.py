"""What rows tell without any physics: `python -m rackscale.plan.fit.yardstick FILE.csv`.

Gradient boosting on the rows' columns alone (scikit-learn, extra `fit`) predicts what each fit of
`fit.serving` leaves out, from the same rows. A cost model is worth its formulas where its errors are below.
"""

import argparse
import hashlib
import sys
import tomllib
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from rackscale.core import SpecError
from rackscale.plan.fit.serving import FITTED, FOLDED, SCALES, errors, left_out
from rackscale.plan.inferencex import NUMBERS, WORDS, Rows, read_rows

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
Report = Mapping[str, Mapping[str, float]]

FLAGS = ("is_multinode", "prefill_dp_attention", "decode_dp_attention")
CATEGORIES = (*(name for name in WORDS if name != "date"), *FLAGS)
SHOWN = {"tpot": "TPOT", "tokens_per_s_per_gpu": "tokens/s per chip", "ttft": "TTFT"}
SEED = 0


def columns(rows: Rows) -> Array:
    """[R, C]: `CATEGORIES` as numbers of their values in alphabetical order, then `NUMBERS`, NaN where a row
    does not say, then the day."""
    parts = [np.unique(rows.column(name), return_inverse=True)[1].astype(np.float64) for name in CATEGORIES]
    parts += [np.array([float(text or "nan") for text in rows.column(name)]) for name in NUMBERS]
    days = [float(date.fromisoformat(text[:10]).toordinal()) for text in rows.column("date")]
    return np.column_stack([*parts, np.array(days)])


def predicted(rows: Rows, masks: Sequence[Mask]) -> dict[str, Array]:
    """Logarithms [R] of each metric of each row by a fit without it; NaN where no mask leaves it out. Raises
    SpecError where scikit-learn is not installed."""
    regressor = _regressor()
    known = columns(rows)
    found = {name: np.full(len(rows.rows), np.nan) for name in SCALES}
    for name, values in found.items():
        truth = np.log(rows.truth[name])
        told = np.isfinite(truth)
        for mask in masks:
            fit = regressor(categorical_features=list(range(len(CATEGORIES))), random_state=SEED)
            values[mask] = fit.fit(known[told & ~mask], truth[told & ~mask]).predict(known[mask])
    return found


def report(rows: Rows) -> dict[str, dict[str, float]]:
    """Errors by scheme and regime, as `serving.fit_rows` names them: five folds of configurations, each
    system left out, all rows of several nodes left out."""
    several = rows.column("is_multinode") == "True"
    truth = {name: np.log(values) for name, values in rows.truth.items()}
    table: dict[str, dict[str, float]] = {}
    for scheme, masks in left_out(rows).items():
        if scheme not in (FOLDED, "several nodes") and not scheme.startswith("system"):
            continue
        found = predicted(rows, masks)
        for regime, chosen in (("one node", ~several), ("several nodes", several)):
            rest = chosen & ~np.isnan(found["tpot"])
            if rest.any():
                numbers = {"rows": float(rest.sum()), **errors(truth, found, rest)}
                table[f"without {scheme}, {regime}"] = numbers
    return table


def physical_report(source: Path, fitted: Path = FITTED) -> Report:
    """The cost model's own errors from the report of its fit; none where that was not a fit to this file."""
    if not fitted.exists():
        return {}
    written = tomllib.loads(fitted.read_text(encoding="utf-8"))["report"]
    same = written["sha256"] == hashlib.sha256(source.read_bytes()).hexdigest()
    errors_by_scheme: Report = written["errors"] if same else {}
    return errors_by_scheme


def table_of(boosted: Report, physical: Report) -> Table:
    """Both side by side, mean and median errors of each metric."""
    table = Table(title="mean (median) of |predicted / measured - 1|: boosting, then the cost model")
    table.add_column("left out, and rows", no_wrap=True)
    table.add_column("n", justify="right")
    for title in SHOWN.values():
        table.add_column(title, justify="right")
        table.add_column("cost model", justify="right")
    for scheme, numbers in boosted.items():
        cells = [_cell(report.get(scheme), name) for name in SHOWN for report in (boosted, physical)]
        table.add_row(scheme, f"{numbers['rows']:.0f}", *cells)
    return table


def _cell(numbers: Mapping[str, float] | None, name: str) -> str:
    if numbers is None:
        return "-"
    return f"{numbers[f'{name}_mape']:.1%} ({numbers[f'{name}_median_ape']:.1%})"


def _regressor() -> Any:
    try:
        from sklearn.ensemble import HistGradientBoostingRegressor  # noqa: PLC0415 (an optional extra)
    except ImportError:
        raise SpecError(
            "scikit-learn is not installed", hint="pip install 'rackscale[fit]' brings it"
        ) from None
    return HistGradientBoostingRegressor


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path, help="rows as InferenceX exports them")
    options = parser.parse_args(arguments)
    physical = physical_report(options.source)
    Console(width=160).print(table_of(report(read_rows(options.source)), physical))
    if not physical:
        sys.stderr.write(
            "No fit of the cost model to this file is kept: run `python -m rackscale.plan.fit.serving`.\n"
        )


if __name__ == "__main__":
    main()
