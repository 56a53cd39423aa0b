"""Predictions held against published measurements, row by row."""

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rackscale.core import SpecError
from rackscale.cost import draws, fitted
from rackscale.cost.parameters import Parameters
from rackscale.plan.closed_loop import closed_loop
from rackscale.plan.inferencex import Rows, read_rows
from rackscale.plan.interval import Noise, fitted_noise, interval
from rackscale.plan.metrics import METRICS, metrics

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True, slots=True)
class ErrorRow:
    """Of n rows. mape: mean of |predicted / measured - 1|; median_ape: its median. bias: geometric mean of
    predicted / measured TPOT, less 1. inside_interval90: share of all three metrics' truths that lie inside
    the stated interval. None where no row has the metric."""

    n: int
    tokens_per_s_per_gpu_mape: float | None
    tokens_per_s_per_gpu_median_ape: float | None
    tpot_mape: float | None
    tpot_median_ape: float | None
    ttft_mape: float | None
    ttft_median_ape: float | None
    bias: float | None
    inside_interval90: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Prediction:
    """Of rows, [R] each, by metric; low and high hold the truth nine times of ten."""

    value: Mapping[str, Array]
    low: Mapping[str, Array]
    high: Mapping[str, Array]


@dataclass(frozen=True, kw_only=True, slots=True)
class Validation:
    """rows: of the file. skipped: by reason. error: of "all", "single_node", "multi_node" and of each kind of
    hardware. known: share of predicted rows on systems that the fit has seen. seen: whether the file is the
    one that was fitted; cross_validated: whether each row is predicted by a fit without its configuration."""

    rows: int
    predicted: int
    skipped: Mapping[str, int]
    error: Mapping[str, ErrorRow]
    known: float
    seen: bool
    cross_validated: bool

    def as_json(self) -> dict[str, object]:
        """As the command line prints it."""
        return asdict(self)


def validate(path: Path, *, cross_validate: bool = False) -> Validation:
    """Predict each row of an InferenceX file from its configuration alone.

    cross_validate: by five fits to the file's own rows, each without a fifth of its configurations. Raises
    SpecError where the file cannot be read, or has no row that can be predicted.
    """
    rows = read_rows(path)
    if not rows.rows:
        reasons = ", ".join(rows.skipped) or "it is empty"
        raise SpecError(
            f"no row of {path} can be predicted: {reasons}", hint="see `rackscale validate --help`"
        )
    found = cross_validated(rows) if cross_validate else predict(rows)
    several = np.char.lower(rows.column("is_multinode")) == "true"
    hardware = rows.column("hardware")
    groups: dict[str, Mask] = {"all": np.ones(len(several), dtype=np.bool_)}
    groups |= {"single_node": ~several, "multi_node": several}
    groups |= {name: hardware == name for name in np.unique(hardware).tolist()}
    return Validation(
        rows=len(rows.rows) + sum(rows.skipped.values()),
        predicted=len(rows.rows),
        skipped=rows.skipped,
        error={name: _errors(rows.truth, found, chosen) for name, chosen in groups.items() if chosen.any()},
        known=float(_is_known(rows).mean()),
        seen=hashlib.sha256(path.read_bytes()).hexdigest() == fitted_noise().fitted_to,
        cross_validated=cross_validate,
    )


def predict(rows: Rows, best: Parameters | None = None, posterior: Parameters | None = None) -> Prediction:
    """What the fit says of each row. best, posterior: other parameters than the fitted ones."""
    value = {name: np.empty(len(rows.rows)) for name in METRICS}
    low, high = ({name: np.empty(len(rows.rows)) for name in METRICS} for _ in range(2))
    several = np.char.lower(rows.column("is_multinode")) == "true"
    known = _is_known(rows)
    for numbers, case in rows.cases():
        centre = metrics(closed_loop(case, fitted() if best is None else best))
        spread = metrics(closed_loop(case, draws() if posterior is None else posterior))
        for name, values in centre.items():
            logs = np.log(values[0])
            value[name][numbers] = values[0]
            for regime, chosen in _regimes(several[numbers], known[numbers]).items():
                noise: Noise = fitted_noise()[regime, name]
                below, above = interval(logs, np.log(spread[name]), noise)
                low[name][numbers[chosen]] = np.exp(below[chosen])
                high[name][numbers[chosen]] = np.exp(above[chosen])
    return Prediction(value=value, low=low, high=high)


def cross_validated(rows: Rows) -> Prediction:
    """Each row by a fit that has not seen its configuration; intervals are as wide as the whole fit's."""
    from rackscale.plan.fit.serving import FOLDED, Problem, cross_validate, left_out  # noqa: PLC0415 (rarely)

    whole = predict(rows)
    found = cross_validate(Problem(rows), left_out(rows)[FOLDED])
    value = {name: np.exp(logs) for name, logs in found.items()}
    return Prediction(
        value=value,
        low={name: whole.low[name] / whole.value[name] * value[name] for name in METRICS},
        high={name: whole.high[name] / whole.value[name] * value[name] for name in METRICS},
    )


def _regimes(several: Mask, known: Mask) -> dict[str, Mask]:
    return {"one node": known & ~several, "several nodes": known & several, "new system": ~known}


def _is_known(rows: Rows) -> Mask:
    return np.isin(np.char.lower(rows.column("hardware")), sorted(fitted_noise().systems))


def _errors(truth: Mapping[str, Array], found: Prediction, chosen: Mask) -> ErrorRow:
    inside: list[Mask] = []
    table: dict[str, float | None] = {"bias": None}
    for name in METRICS:
        rows = chosen & np.isfinite(truth[name]) & (truth[name] > 0)
        measured, predicted = truth[name][rows], found.value[name][rows]
        relative, is_known = np.abs(predicted / measured - 1), rows.any()
        table[f"{name}_mape"] = float(relative.mean()) if is_known else None
        table[f"{name}_median_ape"] = float(np.median(relative)) if is_known else None
        if name == "tpot" and is_known:
            table["bias"] = float(np.exp(np.log(predicted / measured).mean()) - 1)
        inside.append((found.low[name][rows] <= measured) & (measured <= found.high[name][rows]))
    return ErrorRow(n=int(chosen.sum()), inside_interval90=float(np.concatenate(inside).mean()), **table)
