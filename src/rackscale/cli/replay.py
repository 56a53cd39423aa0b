"""`rackscale replay`: the engine, fed a log's events, must give the log's commands."""

from pathlib import Path
from typing import Annotated

import typer

from rackscale.cli.options import JsonOption
from rackscale.cli.output import print_json, print_text
from rackscale.core import SpecError

EXIT_DIFFERENT = 1


def replay(
    log: Annotated[Path, typer.Argument(metavar="LOG.jsonl", help="What `serve --log` wrote.")],
    *,
    as_json: JsonOption = False,
) -> int:
    """Feed a log's events to a fresh engine and require the log's commands.

    Example: rackscale replay serve.jsonl
    """
    from rackscale.engine import replay as replay_lines  # noqa: PLC0415 (--help loads no numpy)

    if not log.is_file():
        raise SpecError(f"{log} is not a file", hint="give a log that `serve --log` wrote")
    with log.open("rb") as lines:
        report = replay_lines(lines)
    return 0
