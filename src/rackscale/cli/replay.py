"""`rackscale replay`: the engine, fed a log's events, must give the log's commands."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from rackscale.cli.options import JsonOption
from rackscale.cli.output import print_json, print_text
from rackscale.core import SpecError
from rackscale.engine import replay as replay_log

EXIT_DIFFERENT = 1


def replay(
    log: Annotated[Path, typer.Argument(metavar="LOG.jsonl", help="What `serve --log` wrote.")],
    *,
    as_json: JsonOption = False,
) -> int:
    """Feed a log's events to a fresh engine and require the log's commands.

    Example: rackscale replay serve.jsonl
    """
    if not log.is_file():
        raise SpecError(f"{log} is not a file", hint="give a log that `serve --log` wrote")
    with log.open("rb") as lines:
        report = replay_log(lines)
    if as_json:
        print_json({**asdict(report), "same": report.same})
    elif report.same:
        print_text(f"{report.events} events, the same commands")
        if report.truncated:
            print_text("the last line was cut off and is left out")
    else:
        print_text(f"line {report.line} differs\nlog:    {report.expected}\nengine: {report.actual}")
    return 0 if report.same else EXIT_DIFFERENT
