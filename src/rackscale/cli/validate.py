"""`rackscale validate`: predictions against published measurements."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from rackscale.cli.options import JsonOption
from rackscale.cli.output import print_json

if TYPE_CHECKING:
    from rackscale.plan.validate import ErrorRow, Validation


class Kind(StrEnum):
    """What a file's rows are."""

    INFERENCEX = "inferencex"
    COLLECTIVES = "collectives"


def validate(
    file: Annotated[Path, typer.Argument(metavar="FILE.csv", help="Measurements, one configuration a row.")],
    *,
    kind: Annotated[
        Kind, typer.Option(help="inferencex: whole servers. collectives: all-to-all of experts.")
    ] = Kind.INFERENCEX,
    cross_validate: Annotated[
        bool,
        typer.Option(
            "--cross-validate", help="Predict each row by a fit that has not seen its configuration."
        ),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Predict each row of a file of measurements from its configuration alone, and print the errors.

    Rows are predicted at their concurrency, as the benchmark loads a server: each answer is followed by a
    new request. What cannot be predicted is counted by its reason.

    Example: rackscale validate inferencex.csv
    """
    if kind is Kind.COLLECTIVES:
        _collectives(file, as_json)
        return
    from rackscale.plan.validate import validate as validated  # noqa: PLC0415 (--help is fast)

    result = validated(file, cross_validate=cross_validate)
    if as_json:
        print_json(result.as_json())
    else:
        _print(result)


def _print(result: "Validation") -> None:
    console = Console(highlight=False)
    table = Table(title=f"{result.predicted} of {result.rows} rows predicted", title_justify="left")
    for heading in (
        "rows",
        "n",
        "tokens/s per chip",
        "TPOT",
        "TTFT",
        "TPOT's bias",
        "inside the 90 % interval",
    ):
        table.add_column(heading, justify="left" if heading == "rows" else "right")
    for name, row in result.error.items():
        table.add_row(name.replace("_", " "), str(row.n), *_cells(row))
    console.print(table)
    console.print("Errors: mean (median) of |predicted / measured - 1|.")
    for reason, count in result.skipped.items():
        console.print(f"skipped: {count} of {reason}")
    if result.known < 1:
        console.print(f"{1 - result.known:.0%} of the rows are of systems that the fit has never seen.")
    if result.seen and not result.cross_validated:
        console.print(
            "These rows are those of the fit: `--cross-validate` predicts each without its configuration."
        )


def _cells(row: "ErrorRow") -> list[str]:
    pairs = (
        (row.tokens_per_s_per_gpu_mape, row.tokens_per_s_per_gpu_median_ape),
        (row.tpot_mape, row.tpot_median_ape),
        (row.ttft_mape, row.ttft_median_ape),
    )
    return [
        *("-" if mean is None else f"{mean:.1%} ({median:.1%})" for mean, median in pairs),
        "-" if row.bias is None else f"{row.bias:+.1%}",
        f"{row.inside_interval90:.1%}",
    ]


def _collectives(file: Path, as_json: bool) -> None:  # noqa: FBT001 (as typer gave it)
    from rackscale.plan.validate_collectives import validate_collectives  # noqa: PLC0415 (--help is fast)

    result = validate_collectives(file)
    if as_json:
        print_json(result.as_json())
        return
    console = Console(highlight=False)
    table = Table(title=f"{result.predicted} of {result.rows} rows predicted", title_justify="left")
    for heading in ("rows", "n", "error", "median", "bias", "inside the 90 % interval"):
        table.add_column(heading, justify="left" if heading == "rows" else "right")
    for name, row in result.error.items():
        cells = (row.mape, row.median_ape, row.bias, row.inside_interval90)
        table.add_row(name, str(row.n), *(f"{cell:.1%}" for cell in cells))
    console.print(table)
    for reason, count in result.skipped.items():
        console.print(f"skipped: {count} of {reason}")
