"""The verbs, and how each of them ends.

Exit code 0: done. 2: bad usage or bad input, with one line on stderr that says what to do. 1: a failure
of ours. 130: interrupted.
"""

import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from rackscale import __version__
from rackscale.cli import (
    catalog,
    compare,
    evaluate,
    export,
    frontend,
    generate,
    host,
    plan,
    quantize,
    replay,
    serve,
    sweep,
    top,
    validate,
)
from rackscale.core import RackscaleError

EXIT_USAGE = 2
EXIT_INTERRUPTED = 130

app = typer.Typer(
    name="rackscale",
    help="Serve and plan Mixture-of-Experts language models at rack scale.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for verb in (
    serve.serve,
    host.host,
    frontend.frontend,
    generate.generate,
    evaluate.evaluate,
    quantize.quantize,
    catalog.catalog,
    plan.plan,
    compare.compare,
    sweep.sweep,
    validate.validate,
    export.export,
    replay.replay,
    top.top,
):
    app.command()(verb)


def _print_version(wanted: bool) -> None:  # noqa: FBT001 (a callback's signature is typer's)
    if wanted:
        typer.echo(f"rackscale {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print it.")
    ] = False,
) -> None:
    """Serve and plan Mixture-of-Experts language models at rack scale."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb and give its exit code. arguments None: those of the process."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    command = typer.main.get_command(app)
    try:
        code = command.main(words or ["--help"], prog_name="rackscale", standalone_mode=False)
    except typer.TyperException as error:
        return _fail(_usage(error), EXIT_USAGE)
    except RackscaleError as error:
        return _fail(str(error), error.exit_code)
    except (typer.Abort, KeyboardInterrupt):
        return _fail("interrupted", EXIT_INTERRUPTED)
    if not words:
        return EXIT_USAGE
    return code if isinstance(code, int) else 0


def _usage(error: typer.TyperException) -> str:
    context: typer.Context | None = getattr(error, "ctx", None)
    path = "rackscale" if context is None else context.command_path
    return f"{error} See `{path} --help`."


def _fail(sentence: str, code: int) -> int:
    sys.stderr.write(f"rackscale: {' '.join(sentence.split())}\n")
    return code
