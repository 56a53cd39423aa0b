"""Who writes to stderr: this package's log, one line an event, and nobody else.

Dynamo's native side logs a line or two for each request to file descriptor 2, whatever DYN_LOG says, and
prints a Python traceback for every refusal that a worker raises, although the client gets it as its answer.
"""

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType

STDERR = 2
ANSWERS = frozenset({"InvalidArgument", "HttpError"})


@contextmanager
def own_stderr() -> Iterator[int | None]:
    """Inside, `sys.stderr` and the log keep the real stderr, and native code writes to /dev/null.

    Gives the descriptor of the real stderr, for a child. Where the user has set DYN_LOG, who wants to see
    Dynamo's lines, everything stays as it is, and None is given.
    """
    if "DYN_LOG" in os.environ:
        yield None
        return
    before, hook, real = sys.stderr, sys.excepthook, os.dup(STDERR)
    before.flush()
    with os.fdopen(os.dup(STDERR), "w", buffering=1, errors="backslashreplace") as ours:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, STDERR)
        os.close(null)
        _move_log(before, ours)
        sys.stderr, sys.excepthook = ours, _print_unless_answer
        try:
            yield real
        finally:
            sys.stderr, sys.excepthook = before, hook
            _move_log(ours, before)
            os.dup2(real, STDERR)
            os.close(real)


def _move_log(source: object, target: object) -> None:
    for handler in logging.getLogger().handlers:
        if isinstance(handler, logging.StreamHandler) and handler.stream is source:
            handler.setStream(target)


def _print_unless_answer(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    if not (kind.__name__ in ANSWERS and kind.__module__.startswith("dynamo")):
        sys.__excepthook__(kind, error, trace)
