"""`rackscale quantize`: a checkpoint in a low-bit format."""

import hashlib
import resource
import time
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from rackscale.cli.options import JsonOption
from rackscale.cli.output import print_json, progress
from rackscale.core import SpecError

if TYPE_CHECKING:
    from rackscale.checkpoint.quantizer import Encoder, Job, Result

KIB_PER_MIB = 1024
MIN_CALIBRATION_BYTES = 1000


class OutputFormat(StrEnum):
    """What is written."""

    NVFP4 = "nvfp4"
    NVFP4_COMPRESSED_TENSORS = "nvfp4-compressed-tensors"
    INT4 = "int4-g32"
    MXFP4 = "mxfp4"
    FP8 = "fp8-128x128"


class Scope(StrEnum):
    """What is quantised."""

    EXPERTS = "experts"
    LINEAR = "linear"


class Method(StrEnum):
    """How codes and scales are chosen."""

    RTN = "rtn"
    SEARCH = "search"


def quantize(
    source: Annotated[Path, typer.Argument(metavar="SRC", help="A Hugging Face folder.")],
    target: Annotated[Path, typer.Argument(metavar="DST", help="The folder to write; not there yet.")],
    *,
    output_format: Annotated[
        OutputFormat, typer.Option("--format", help="nvfp4: as ModelOpt exports it.")
    ] = OutputFormat.NVFP4,
    scope: Annotated[
        Scope, typer.Option(help="experts: routed experts; linear: attention, MLPs and head too.")
    ] = Scope.EXPERTS,
    method: Annotated[
        Method, typer.Option(help="rtn: nearest, ModelOpt's bits; search: scales that err least.")
    ] = Method.RTN,
    calibrate: Annotated[
        Path | None, typer.Option(metavar="FILE.txt", help="Text to measure activations on.")
    ] = None,
    shard_gb: Annotated[float, typer.Option(metavar="X", help="Size of an output file.", min=1e-6)] = 5.0,
    as_json: JsonOption = False,
) -> None:
    """Write a checkpoint with its matrices in a low-bit format.

    Memory holds a few tensors at a time. A run that is cut short goes on where it was when the same command
    is given again; DST appears when it is whole.

    Example: rackscale quantize models/austen-moe austen-moe-nvfp4
    """
    from rackscale.checkpoint.quantizer import Options, open_job  # noqa: PLC0415 (loads torch)
    from rackscale.checkpoint.quantizer import OutputFormat as Form  # noqa: PLC0415 (loads torch)
    from rackscale.checkpoint.quantizer import Scope as QuantizerScope  # noqa: PLC0415 (loads torch)

    start_s = time.monotonic()
    text = None if calibrate is None else _read(calibrate)
    options = Options(
        form=Form(output_format.value),
        scope=QuantizerScope(scope.value),
        method=method.value,
        calibration=None if text is None else hashlib.sha256(text.encode()).hexdigest(),
        shard_bytes=int(shard_gb * 1e9),
    )
    with open_job(source, target, options) as job, progress() as bar:
        encoder = _encoder(job, source, text, bar)
        task = bar.add_task("quantising", total=job.plan.bytes_before)
        try:
            result = job.run(encoder, on_progress=lambda num_bytes: bar.advance(task, num_bytes))
        except OSError as error:
            raise SpecError(
                f"{target} cannot be written ({error.strerror})", hint="make room and give the same command"
            ) from None
    seconds = time.monotonic() - start_s
    peak_rss_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / KIB_PER_MIB
    if as_json:
        print_json(
            {
                "tensors": result.tensors,
                "bytes_before": result.bytes_before,
                "bytes_after": result.bytes_after,
                "mse_relative": result.mse_relative,
                "seconds": seconds,
                "peak_rss_mib": peak_rss_mib,
            }
        )
    else:
        _print_table(result, target, seconds, peak_rss_mib)


def _encoder(job: "Job", source: Path, text: str | None, bar: Progress) -> "Encoder | None":
    """None: rounding to nearest, which needs none. Raises SpecError where the format has no such method."""
    from rackscale.checkpoint.quantizer import RoundedEncoder, SearchEncoder  # noqa: PLC0415 (loads torch)

    searched = job.options.method == "search"
    if not searched and text is None:
        return None
    if not job.options.form.startswith(OutputFormat.NVFP4):
        raise SpecError(
            f"--format {job.options.form} with --calibrate or --method search", hint="they are for nvfp4"
        )
    if text is None:
        return SearchEncoder()
    from rackscale.runtime.calibration import calibrate  # noqa: PLC0415 (loads torch)

    task = bar.add_task("measuring", total=None)
    job.draft.scratch.mkdir(exist_ok=True)
    calibrated = calibrate(
        source,
        text,
        job.roles,
        job.draft.scratch,
        lambda done, total: bar.update(task, completed=done, total=total),
    )
    return calibrated if searched else RoundedEncoder(calibrated)


def _print_table(result: "Result", target: Path, seconds: float, peak_rss_mib: float) -> None:
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="dim")
    table.add_column()
    share = result.bytes_after / result.bytes_before
    table.add_row("written", str(target))
    table.add_row("matrices", f"{result.tensors}")
    table.add_row(
        "size", f"{result.bytes_before / 1e9:.3f} GB to {result.bytes_after / 1e9:.3f} GB ({share:.1%})"
    )
    table.add_row("error", f"{result.mse_relative:.3e} of the matrices' squares")
    table.add_row("time", f"{seconds:.1f} s ({result.bytes_before / 1e6 / seconds:.0f} MB/s)")
    table.add_row("memory", f"{peak_rss_mib:.0f} MiB at most")
    if result.unfit:
        few = ", ".join(result.unfit[:3]) + (", ..." if len(result.unfit) > 3 else "")
        table.add_row("left as they are", f"{len(result.unfit)} whose columns are no whole groups: {few}")
    Console(highlight=False, soft_wrap=True).print(table)


def _read(path: Path) -> str:
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise SpecError(f"{path} cannot be read ({error.strerror})", hint="give a text file") from None
    except UnicodeDecodeError:
        raise SpecError(f"{path} is no UTF-8", hint="give a text file in UTF-8") from None
    if len(text.encode()) < MIN_CALIBRATION_BYTES:
        raise SpecError(
            f"{path} is too short to calibrate on", hint=f"give {MIN_CALIBRATION_BYTES} bytes or more"
        )
    return text
