"""Fit all-to-all to kernels that ran alone: `python -m rackscale.plan.fit.collectives FILE.csv`.

Residuals are of logarithms, robust, of each phase and of their sum, and held to the priors. Spreads come from
fits to resampled configurations. The report says how far off rows are of an EP width that was left out.
"""

import argparse
import hashlib
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import rackscale.cost
from rackscale.cost.collectives.priors import ABSENT, PRIORS, QUANTITIES, factors
from rackscale.cost.collectives.terms import Terms
from rackscale.cost.collectives.traffic import Traffic, traffic, wire_format
from rackscale.cost.priors import GENERATIONS
from rackscale.plan.collective_rows import Row, read_collectives
from rackscale.plan.fit.least_squares import soft, solve
from rackscale.plan.fit.reductions import reduction_lines

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

SCALE = 0.07  # the deviation that is expected of a measurement
PHASE_WEIGHT = 0.5  # of a phase beside the whole exchange
NUM_RESAMPLED = 12
INSIDE = 0.9
NEGLIGIBLE = 0.01  # factors so close to 1 are left out of the file
FITTED = Path(rackscale.cost.__file__).parent / "fitted" / "collectives.toml"
Progress = Callable[[str], None]


class Problem:
    """Rows of measurements, the parameters that they depend on, and what the fit makes small."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self.rows = rows
        phases = [(number, phase) for number, row in enumerate(rows) for phase in row.seconds]
        self.row_of = np.array([number for number, _ in phases])
        self.starts = np.flatnonzero(np.diff(self.row_of, prepend=-1))
        self.phase_truth = np.log([rows[number].seconds[phase] for number, phase in phases])
        self.truth = np.log([sum(row.seconds.values()) for row in rows])
        self.traffic = _joined(
            [
                traffic(rows[number].exchange, rows[number].links, rows[number].protocol.traits, phase)
                for number, phase in phases
            ]
        )
        self._index([(rows[number], phase) for number, phase in phases])

    def _index(self, measured: Sequence[tuple[Row, str]]) -> None:
        """Columns of the parameters that multiply to a quantity; the last column is a factor of 1."""
        spreads: dict[str, float] = {}
        names: dict[str, list[list[str]]] = {quantity: [] for quantity in QUANTITIES}
        for row, phase in measured:
            wire = wire_format(row.exchange, row.protocol.traits, phase)
            generation = GENERATIONS[int(np.ravel(row.links.generation)[0])]
            for quantity in QUANTITIES:
                base = f"{row.protocol.family}.{phase}.{quantity}"
                chain = []
                if base in PRIORS:
                    further = factors(base, row.protocol.kernel, generation, wire)
                    spreads |= {base: PRIORS[base].spread, **dict(further)}
                    chain = [base, *(name for name, _ in further)]
                names[quantity].append(chain)
        self.names = tuple(spreads)
        column = {name: number for number, name in enumerate(self.names)}
        longest = max(len(chain) for chains in names.values() for chain in chains)
        self.columns = {
            quantity: np.array(
                [[column[name] for name in chain] + [-1] * (longest - len(chain)) for chain in chains]
            )
            for quantity, chains in names.items()
        }
        self.distinct = {
            quantity: np.unique(columns, axis=0, return_inverse=True)
            for quantity, columns in self.columns.items()
        }
        self.centre = np.array([np.log(PRIORS[name].value) if name in PRIORS else 0.0 for name in self.names])
        self.spread = np.array([spreads[name] for name in self.names])

    def phase_logs(self, logs: Array) -> Array:
        """[K, N]: of each phase's seconds, by parameters [K, P]."""
        padded = np.concatenate([logs, np.zeros((len(logs), 1))], 1)
        values = {
            quantity: np.where(
                columns[:, 0] < 0, ABSENT.get(quantity, 0.0), np.exp(padded[:, columns].sum(-1))
            )[:, numbers]
            for quantity, (columns, numbers) in self.distinct.items()
        }
        return np.asarray(np.log(Terms(**values).seconds(self.traffic)))

    def row_logs(self, phase_logs: Array) -> Array:
        """[K, R]: of the sum of a row's phases."""
        return np.asarray(np.log(np.add.reduceat(np.exp(phase_logs), self.starts, axis=1)))

    def fit(self, weights: Array, start: Array | None = None) -> Array:
        """The best parameters [P] for rows that weigh so much."""

        def residuals(logs: Array) -> Array:
            phases = self.phase_logs(logs)
            parts = (
                weights * soft(self.row_logs(phases) - self.truth, SCALE),
                PHASE_WEIGHT * weights[self.row_of] * soft(phases - self.phase_truth, SCALE),
                (logs - self.centre) / self.spread,
            )
            return np.concatenate(parts, 1)

        return solve(residuals, self.centre if start is None else start)[0]

    def errors(self, logs: Array) -> Array:
        """[R]: logarithm of predicted over measured."""
        return np.asarray(self.row_logs(self.phase_logs(logs[None]))[0] - self.truth)


@dataclass(frozen=True, kw_only=True, slots=True)
class LeftOut:
    """Of rows at EP widths that the fit had not. error: logarithms of predicted over measured, [R]. known:
    whether their kernel was measured at another width."""

    error: Array
    known: Mask


def leave_out_widths(problem: Problem, best: Array, progress: Progress) -> LeftOut:
    """Each EP width predicted by a fit to the others."""
    rows = problem.rows
    width = np.array([row.ranks for row in rows])
    kernel = np.array([row.kernel for row in rows])
    error, known = np.empty(len(rows)), np.empty(len(rows), dtype=np.bool_)
    for left in np.unique(width):
        out = width == left
        logs = problem.fit((~out).astype(np.float64), _start(problem, best, out))
        error[out] = problem.errors(logs)[out]
        known[out] = np.isin(kernel[out], kernel[~out])
        progress(f"EP {left} left out: {_ape(error[out]).mean():.1%}")
    return LeftOut(error=error, known=known)


def _start(problem: Problem, best: Array, out: Mask) -> Array:
    """The best of all rows, but for what only the rows left out know."""
    seen = np.zeros(len(best) + 1, dtype=np.bool_)
    chosen = ~out[problem.row_of]
    for columns in problem.columns.values():
        seen[columns[chosen].ravel()] = True
    return np.where(seen[:-1], best, problem.centre)


def resampled(problem: Problem, best: Array) -> Array:
    """[P]: standard deviations over fits to configurations drawn with replacement."""
    labels = [row.configuration for row in problem.rows]
    number_of = {label: number for number, label in enumerate(dict.fromkeys(labels))}
    numbers = np.array([number_of[label] for label in labels])
    random = np.random.default_rng(0)  # noqa: TID251 (a fit draws by a fixed seed)
    found = []
    for _ in range(NUM_RESAMPLED):
        drawn = random.integers(0, len(number_of), len(number_of))
        times = np.bincount(drawn, minlength=len(number_of))[numbers]
        found.append(problem.fit(np.sqrt(times), best))
    return np.asarray(np.std(found, axis=0))


def _joined(parts: Sequence[Traffic]) -> Traffic:
    names = Traffic.__dataclass_fields__
    return Traffic(
        **{name: np.concatenate([np.ravel(getattr(part, name)) for part in parts]) for name in names}
    )


def _ape(error: Array) -> Array:
    return np.abs(np.expm1(error))


def error_line(name: str, error: Array) -> str:
    """A row of the report: number, mean and median of |predicted / measured - 1|, and geometric bias."""
    ape = _ape(error)
    bias = float(np.expm1(error.mean()))
    return (
        f'"{name}" = {{ n = {len(error)}, mape = {ape.mean():.4f}, '
        f"median_ape = {np.median(ape):.4f}, bias = {bias:.4f} }}"
    )


def report_lines(problem: Problem, best: Array, left: LeftOut) -> list[str]:
    """Errors of the fit's own rows, and of those left out."""
    width = np.array([row.ranks for row in problem.rows])
    kernel = np.array([row.kernel for row in problem.rows])
    own = problem.errors(best)
    lines = ["", "[report.error]", error_line("all", own)]
    lines += [error_line(name, own[kernel == name]) for name in np.unique(kernel)]
    lines += [
        "",
        "# EP widths that the fit had not, of kernels measured at another width",
        "[report.left_out]",
    ]
    lines.append(error_line("all", left.error[left.known]))
    for ranks in np.unique(width[left.known]):
        lines.append(error_line(f"EP {ranks}", left.error[left.known & (width == ranks)]))
    for name in np.unique(kernel[left.known]):
        lines.append(error_line(name, left.error[left.known & (kernel == name)]))
    lines += ["", "# kernels that the fit had not at all: their family's mean", "[report.new_kernel]"]
    lines += [
        error_line(name, left.error[~left.known & (kernel == name)])
        for name in np.unique(kernel[~left.known])
    ]
    return lines


def _half_widths(problem: Problem, best: Array, left: LeftOut) -> list[str]:
    """Of each kernel: what nine of ten rows of its family at a width left out stay inside of, and no less
    than its own rows do, which scatter more where hosts timed them."""
    family = np.array([row.protocol.family for row in problem.rows])
    kernel = np.array([row.kernel for row in problem.rows])
    own, error = np.abs(problem.errors(best)), np.abs(left.error)
    lines = ["", "[half_width]"]
    for name in np.unique(kernel):
        chosen = kernel == name
        alike = left.known & (family == family[chosen][0])
        lines.append(f"{name} = {max(_outer(own[chosen]), _outer(error[alike])):.4f}")
    return [*lines, f"new = {_outer(error[~left.known] if not left.known.all() else error):.4f}"]


def _outer(error: Array) -> float:
    return float(np.quantile(error, INSIDE)) if len(error) else 0.0


def parameter_lines(problem: Problem, best: Array, spread: Array) -> list[str]:
    """Value and spread of each; a family's own with its prior, meaning and source."""
    lines = ["", "[parameters]"]
    for name, log, deviation in sorted(zip(problem.names, best, spread, strict=True)):
        if name not in PRIORS and abs(log) < NEGLIGIBLE:
            continue
        line = f'"{name}" = {{ value = {np.exp(log):.5g}, spread = {deviation:.3g}'
        if name in PRIORS:
            prior = PRIORS[name]
            line += f', prior = {prior.value:.3g}, what = "{prior.what}", source = "{prior.source}"'
        lines.append(line + " }")
    return lines


def fit(path: Path, today: date, progress: Progress) -> str:
    """The text of `fitted/collectives.toml`. Raises SpecError where the file is no table of collectives."""
    table = read_collectives(path)
    problem = Problem(table.rows)
    best = problem.fit(np.ones(len(problem.rows)))
    progress(f"{len(problem.rows)} rows, {len(best)} parameters: {_ape(problem.errors(best)).mean():.1%}")
    left = leave_out_widths(problem, best, progress)
    lines = [
        "# Written by `python -m rackscale.plan.fit.collectives`; do not edit.",
        "",
        "[report]",
        f'date = "{today.isoformat()}"',
        f'fitted_to = "{hashlib.sha256(path.read_bytes()).hexdigest()}"',
        f"rows = {len(problem.rows)}",
        f"configurations = {len({row.configuration for row in problem.rows})}",
        f"skipped = {sum(table.skipped.values())}",
        *report_lines(problem, best, left),
        *_half_widths(problem, best, left),
        *reduction_lines(),
        *parameter_lines(problem, best, resampled(problem, best)),
    ]
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the fitted file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path, metavar="FILE.csv", help="measured collectives")
    parser.add_argument("--out", type=Path, default=FITTED, help="where to write the parameters")
    options = parser.parse_args(arguments)
    text = fit(options.file, date.today(), lambda line: print(line, file=sys.stderr))  # noqa: DTZ011, T201 (a script)
    options.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
