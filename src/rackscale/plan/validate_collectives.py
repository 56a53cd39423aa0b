"""Predictions of collectives held against measurements, row by row."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rackscale.core import SpecError
from rackscale.cost.collectives import fitted, phases
from rackscale.plan.collective_rows import Row, read_collectives

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True)
class CollectivesErrorRow:
    """Of n rows. mape: mean of |predicted / measured - 1|, of the phases that a row has; median_ape: its
    median. bias: geometric mean of predicted / measured, less 1. inside_interval90: share of truths inside
    the stated interval."""

    n: int
    mape: float
    median_ape: float
    bias: float
    inside_interval90: float


@dataclass(frozen=True, kw_only=True, slots=True)
class CollectivesValidation:
    """rows: of the file. skipped: by reason. error: of "all", each kernel, each system and each EP width."""

    rows: int
    predicted: int
    skipped: Mapping[str, int]
    error: Mapping[str, CollectivesErrorRow]

    def as_json(self) -> dict[str, object]:
        """As the command line prints it."""
        return asdict(self)


def validate_collectives(path: Path) -> CollectivesValidation:
    """Predict dispatch, combine and what prepares them, of each row of a file like `data/collectives.csv`,
    from its configuration alone. Raises SpecError where it is no such file, or no row can be predicted."""
    table = read_collectives(path)
    if not table.rows:
        reasons = ", ".join(table.skipped) or "it is empty"
        raise SpecError(
            f"no row of {path} can be predicted: {reasons}", hint="see `rackscale validate --help`"
        )
    predicted = np.array([_predicted(row) for row in table.rows])
    error = np.log(predicted) - np.log([sum(row.seconds.values()) for row in table.rows])
    width = np.array([_half_width(row) for row in table.rows])
    groups = {"all": np.ones(len(error), dtype=np.bool_)}
    groups |= _groups([row.kernel for row in table.rows])
    groups |= _groups([row.system for row in table.rows])
    widths = sorted({row.ranks for row in table.rows})
    ranks = np.array([row.ranks for row in table.rows])
    groups |= {f"EP {number}": ranks == number for number in widths}
    return CollectivesValidation(
        rows=len(table.rows) + sum(table.skipped.values()),
        predicted=len(table.rows),
        skipped=table.skipped,
        error={name: _errors(error[chosen], width[chosen]) for name, chosen in groups.items()},
    )


def _predicted(row: Row) -> float:
    found = phases(row.exchange, row.links, row.protocol)
    return sum(float(np.ravel(getattr(found, phase).seconds)[0]) for phase in row.seconds)


def _half_width(row: Row) -> float:
    return float(np.ravel(fitted().interval_half_width(row.protocol, row.links.generation))[0])


def _groups(labels: list[str]) -> dict[str, NDArray[np.bool_]]:
    return {name: np.array(labels) == name for name in sorted(set(labels))}


def _errors(error: Array, width: Array) -> CollectivesErrorRow:
    ape = np.abs(np.expm1(error))
    return CollectivesErrorRow(
        n=len(error),
        mape=float(ape.mean()),
        median_ape=float(np.median(ape)),
        bias=float(np.expm1(error.mean())),
        inside_interval90=float((np.abs(error) <= width).mean()),
    )
