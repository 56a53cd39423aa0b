"""How a server is told to end."""

import asyncio
import os
import signal
from typing import Any

EXIT_INTERRUPTED = 130


def stop_on_signals() -> asyncio.Event:
    """Set by the first SIGTERM or Ctrl-C. A second one ends the process at once: the rank follows, since
    it dies with its parent."""
    stop = asyncio.Event()

    def told() -> None:
        if stop.is_set():
            os._exit(EXIT_INTERRUPTED)
        stop.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told)
    return stop


async def done_before(work: asyncio.Future[Any], *others: asyncio.Future[Any]) -> bool:
    """Whether the work was done before all the others; it is cancelled where not. Raises what it raises."""
    waited: set[asyncio.Future[Any]] = {work, *others}
    await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
    if work.done():
        work.result()
        return True
    work.cancel()
    await asyncio.gather(work, return_exceptions=True)
    return False
