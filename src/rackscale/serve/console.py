"""What reaches stderr while a server runs: the log, one line an event, and nothing else.

Dynamo's native side writes a line or two for each request to file descriptor 2, whatever DYN_LOG says, and
prints a traceback to `sys.stderr` for every refusal that a worker raises, although its client gets that as
the answer. Python's own last words (an exception that nobody caught) become records of the log.
"""

import logging
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import TracebackType
from typing import TextIO

STDERR = 2

_LOG = logging.getLogger("rackscale.serve")


@contextmanager
def only_the_log() -> Iterator[int | None]:
    """Inside, handlers of the root logger keep the real stderr; `sys.stderr` and descriptor 2 are /dev/null.

    Gives the descriptor of the real stderr, for a child. Where the user has set DYN_LOG, who wants to see
    Dynamo's lines, everything stays as it is, and None is given.
    """
    if "DYN_LOG" in os.environ:
        yield None
        return
    before = sys.stderr
    before.flush()
    with ExitStack() as stack:
        real = os.dup(STDERR)
        stack.callback(os.close, real)
        ours = stack.enter_context(os.fdopen(os.dup(STDERR), "w", buffering=1, errors="backslashreplace"))
        null = stack.enter_context(open(os.devnull, "w"))  # noqa: PTH123 (nothing is encoded)
        os.dup2(null.fileno(), STDERR)
        stack.callback(os.dup2, real, STDERR)
        _move_log(before, ours)
        stack.callback(_move_log, ours, before)
        _take_over(null)
        stack.callback(_give_back, before)
        yield real


def _move_log(source: TextIO, target: TextIO) -> None:
    for handler in logging.getLogger().handlers:
        if isinstance(handler, logging.StreamHandler) and handler.stream is source:
            handler.setStream(target)


def _take_over(null: TextIO) -> None:
    sys.stderr, sys.excepthook, threading.excepthook = null, _log_uncaught, _log_uncaught_in_thread


def _give_back(before: TextIO) -> None:
    sys.stderr, sys.excepthook, threading.excepthook = before, sys.__excepthook__, threading.__excepthook__


def _log_uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    _LOG.critical("nobody caught %s", kind.__name__, exc_info=(kind, error, trace))


def _log_uncaught_in_thread(hook: threading.ExceptHookArgs) -> None:
    _LOG.critical("nobody caught %s in a thread", hook.exc_type.__name__, exc_info=hook.exc_value)
