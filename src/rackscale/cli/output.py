"""What a verb prints: JSON or text on stdout; progress on stderr, where that is a terminal."""

import json
import sys
from collections.abc import Mapping

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn


def print_json(value: Mapping[str, object]) -> None:
    """One object, on one line of stdout."""
    sys.stdout.write(json.dumps(value) + "\n")


def print_text(text: str) -> None:
    """A line of stdout."""
    sys.stdout.write(text + "\n")


def progress() -> Progress:
    """A bar on stderr that leaves nothing behind; silent where stderr is no terminal."""
    console = Console(stderr=True)
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
