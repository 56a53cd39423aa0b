"""Fit the cost model to InferenceX rows: `python -m rackscale.plan.fit.serving FILE.csv`.

Residuals are of logarithms, robust, and held to the priors; repeated runs of a configuration count as its
number to the power of 0.4. The posterior is the normal distribution around the best fit (Laplace). What
rows deviate beyond it is measured by cross-validation and kept beside the parameters as the noise.
"""

import argparse
import hashlib
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import rackscale.cost
from rackscale.cost.parameters import Parameters, all_names, prior_centre_and_spread
from rackscale.plan.closed_loop import Case, closed_loop
from rackscale.plan.fit.grouped_gemm import GroupedGemm
from rackscale.plan.fit.least_squares import soft, softer, solve
from rackscale.plan.inferencex import Rows, read_rows
from rackscale.plan.interval import Noise, noise_of
from rackscale.plan.metrics import metrics

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

SCALES = {"tpot": 0.08, "ttft": 0.3, "tokens_per_s_per_gpu": 0.1}  # deviations that are expected of a row
LOSSES = {"tpot": soft, "ttft": softer, "tokens_per_s_per_gpu": soft}
KERNEL_SCALE, KERNEL_WEIGHT = 0.2, 0.5  # the same of expert kernels alone
REPEATS = -0.3  # each of n runs of a configuration weighs n to this power
FOLDS = 5
FOLDED = "configurations"  # the cross-validation that leaves out one of so many folds
NUM_DRAWS = 32
FITTED = Path(rackscale.cost.__file__).parent / "fitted" / "serving.toml"


class Problem:
    """Rows of one model, and what the fit makes small."""

    def __init__(self, rows: Rows) -> None:
        ((self.numbers, self.case),) = rows.cases()
        self.names = all_names()
        self.centre, self.spread = prior_centre_and_spread(self.names)
        self.truth = {name: np.log(values) for name, values in rows.truth.items()}
        configurations = rows.configurations()
        self.kernels = GroupedGemm()
        self.weights = np.bincount(configurations)[configurations] ** REPEATS

    def residuals(self, moved: Array, case: Case, chosen: Mask) -> Array:
        """[K, N]: of each metric, and of the priors."""
        parameters = Parameters(names=self.names, moved=moved)
        found = metrics(closed_loop(case, parameters))
        parts = [
            self.weights[chosen] * LOSSES[name](np.log(found[name]) - self.truth[name][chosen], scale)
            for name, scale in SCALES.items()
        ]
        alone = self.kernels.log_predicted(parameters) - self.kernels.log_seconds
        parts.append(KERNEL_WEIGHT * soft(alone, KERNEL_SCALE))
        whole: Array = np.nan_to_num(np.concatenate([*parts, (moved - self.centre) / self.spread], 1))
        return whole

    def fit(self, chosen: Mask, start: Array | None = None) -> tuple[Array, Array]:
        """Best parameters [P] for the rows that are chosen, and the posterior's precision [P, P]."""
        case = select(self.case, chosen)
        first = self.centre if start is None else start
        return solve(lambda moved: self.residuals(moved, case, chosen), first)

    def predicted(self, moved: Array, chosen: Mask) -> dict[str, Array]:
        """Logarithms [K, R] of what is predicted of the rows that are chosen."""
        loop = closed_loop(
            select(self.case, chosen), Parameters(names=self.names, moved=np.atleast_2d(moved))
        )
        return {name: np.log(values) for name, values in metrics(loop).items()}


def select(case: Case, chosen: Mask) -> Case:
    """The same columns for some rows."""
    selected: Case = _selected(case, chosen, len(chosen))
    return selected


def _selected(value: Any, chosen: Mask, length: int) -> Any:
    if isinstance(value, np.ndarray):
        return value[..., chosen] if value.shape[-1:] == (length,) else value
    if hasattr(value, "__dataclass_fields__"):
        fields = value.__dataclass_fields__
        return type(value)(**{name: _selected(getattr(value, name), chosen, length) for name in fields})
    return value


def left_out(rows: Rows) -> dict[str, list[Mask]]:
    """What each cross-validation leaves out: one configuration of five, each system, each engine, all rows of
    several nodes, each width of expert parallelism."""
    configurations = rows.configurations()
    order = np.random.default_rng(0).permutation(configurations.max() + 1)  # noqa: TID251 (seeded folds)
    fold = order[configurations] % FOLDS
    hardware, framework = rows.column("hardware"), rows.column("framework")
    engine = np.where(np.char.find(framework, "trt") >= 0, "trtllm", "sglang")
    width = rows.column("decode_ep")
    schemes = {FOLDED: [fold == number for number in range(FOLDS)]}
    schemes |= {f"system {name}": [hardware == name] for name in np.unique(hardware)}
    schemes |= {f"engine {name}": [engine == name] for name in np.unique(engine)}
    schemes |= {f"EP {name}": [width == name] for name in np.unique(width)}
    return schemes | {"several nodes": [rows.column("is_multinode") == "True"]}


def cross_validate(problem: Problem, masks: Sequence[Mask], start: Array | None = None) -> dict[str, Array]:
    """Logarithms [R] of predictions of each row by a fit without it; NaN where no fit leaves it out."""
    found = {name: np.full(len(masks[0]), np.nan) for name in SCALES}
    for mask in masks:
        best, _ = problem.fit(~mask, start)
        for name, values in problem.predicted(best, mask).items():
            found[name][mask] = values[0]
    return found


def posterior(best: Array, precision: Array) -> Array:
    """Draws [K, P] of the normal distribution around the best fit. precision: second derivatives of half the
    cost."""
    covariance = np.linalg.inv(precision)
    root = np.linalg.cholesky(covariance + 1e-12 * np.eye(len(best)))
    drawn = np.random.default_rng(1).standard_normal((NUM_DRAWS, len(best)))  # noqa: TID251 (seeded draws)
    return best + drawn @ root.T


def errors(truth: Mapping[str, Array], found: Mapping[str, Array], chosen: Mask) -> dict[str, float]:
    """Mean and median absolute error over the truth, of logarithms, of rows that are chosen and predicted."""
    table: dict[str, float] = {}
    for name in SCALES:
        rows = chosen & ~np.isnan(found[name]) & ~np.isnan(truth[name])
        relative = np.abs(np.exp(found[name][rows] - truth[name][rows]) - 1)
        table |= {f"{name}_mape": float(relative.mean()), f"{name}_median_ape": float(np.median(relative))}
    return table


@dataclass(frozen=True, kw_only=True, slots=True)
class Fit:
    """best [P], draws [K, P]; noise by regime and metric; report: errors by scheme and regime."""

    names: Sequence[str]
    best: Array
    draws: Array
    noise: Mapping[str, Mapping[str, Noise]]
    report: Mapping[str, Mapping[str, float]]
    systems: Sequence[str]


def fit_rows(rows: Rows, say: Callable[[str], None]) -> Fit:
    """The whole fit, with its cross-validations."""
    problem = Problem(rows)
    everything = np.ones(len(rows.rows), dtype=np.bool_)
    best, precision = problem.fit(everything)
    draws = posterior(best, precision)
    spread_out = problem.predicted(draws, everything)
    several = rows.column("is_multinode") == "True"
    regimes = {"one node": ~several, "several nodes": several}
    report: dict[str, Mapping[str, float]] = {}
    noise: dict[str, dict[str, Noise]] = {}
    unseen = {name: np.full(len(several), np.nan) for name in SCALES}

    def add(scheme: str, found: Mapping[str, Array]) -> None:
        predicted = ~np.isnan(found["tpot"])
        for regime, chosen in regimes.items():
            if (chosen & predicted).any():
                count = float((chosen & predicted).sum())
                report[f"{scheme}, {regime}"] = {"rows": count, **errors(problem.truth, found, chosen)}
                say(f"{scheme}, {regime}: {report[f'{scheme}, {regime}']}")

    add("rows of the fit", {name: values[0] for name, values in problem.predicted(best, everything).items()})
    for scheme, masks in left_out(rows).items():
        found = cross_validate(problem, masks)
        add(f"without {scheme}", found)
        if scheme == FOLDED:
            for regime, chosen in regimes.items():
                noise[regime] = {
                    name: noise_of(
                        problem.truth[name][chosen], found[name][chosen], spread_out[name][:, chosen]
                    )
                    for name in SCALES
                }
        elif scheme.startswith("system"):
            for name, values in found.items():
                unseen[name] = np.where(np.isnan(values), unseen[name], values)
    noise["new system"] = {
        name: noise_of(problem.truth[name], unseen[name], spread_out[name]) for name in SCALES
    }
    systems = sorted(set(rows.column("hardware").tolist()))
    return Fit(names=problem.names, best=best, draws=draws, noise=noise, report=report, systems=systems)


def toml_text(fit: Fit, source: Path) -> str:
    """The file that `cost.fitted`, `cost.draws` and `interval.fitted_noise` read."""
    lines = [
        "# Fitted by `python -m rackscale.plan.fit.serving`, as fits move parameters: see cost/priors.py.",
        "",
        "[report]",
        f'source = "{source.name}"',
        f'sha256 = "{hashlib.sha256(source.read_bytes()).hexdigest()}"',
        f"systems = {json.dumps(list(fit.systems))}",
    ]
    for scheme, table in fit.report.items():
        lines += [
            "",
            f'[report.errors."{scheme}"]',
            *(f"{name} = {value:.4g}" for name, value in table.items()),
        ]
    lines += [
        "",
        "[best]",
        *(f'"{name}" = {value:.6g}' for name, value in zip(fit.names, fit.best, strict=True)),
    ]
    lines += ["", "[spread]"]
    lines += [f'"{name}" = {value:.3g}' for name, value in zip(fit.names, fit.draws.std(0), strict=True)]
    for regime, bounds in fit.noise.items():
        for metric, noise in bounds.items():
            lines += [
                "",
                f'[noise."{regime}".{metric}]',
                f"low = {noise.low:.4g}",
                f"high = {noise.high:.4g}",
            ]
    lines += ["", "[draws]"]
    for name, column in zip(fit.names, fit.draws.T, strict=True):
        lines.append(f'"{name}" = [{", ".join(f"{value:.5g}" for value in column)}]')
    return "\n".join(lines) + "\n"


def main() -> None:
    """Fit, cross-validate, and write the file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path, help="rows as InferenceX exports them")
    parser.add_argument("--out", type=Path, default=FITTED)
    options = parser.parse_args()
    rows = read_rows(options.source)
    fit = fit_rows(rows, partial(print, file=sys.stderr))
    options.out.parent.mkdir(exist_ok=True)
    options.out.write_text(toml_text(fit, options.source), encoding="utf-8")


if __name__ == "__main__":
    main()
