"""A server without a model: it hands requests to workers elsewhere, each to the one that has its prefix."""

import asyncio
import logging
from contextlib import AsyncExitStack

from rackscale.core import SpecError
from rackscale.serve.console import only_the_log
from rackscale.serve.discovery import check_discovery
from rackscale.serve.frontend import Frontend, configure, free_port
from rackscale.serve.gateway import Gateway
from rackscale.serve.options import FrontendOptions
from rackscale.serve.stopping import done_before, stop_on_signals

WATCH_S = 0.2

_LOG = logging.getLogger("rackscale.serve")


async def run(options: FrontendOptions) -> int:
    """Serve until told to stop, and give the exit code.

    Raises SpecError where the address is taken, or where discovery cannot be reached.
    """
    if not options.among_others:
        raise SpecError("a frontend alone", hint="give --discovery file or etcd, where it finds workers")
    check_discovery(options.discovery)
    configure(options)
    stop = stop_on_signals()
    async with AsyncExitStack() as stack:
        stopping = asyncio.ensure_future(stop.wait())
        stack.callback(stopping.cancel)
        gateway = Gateway(options, port := free_port(), None)
        stack.push_async_callback(gateway.close)
        await gateway.start()
        frontend = Frontend(options)
        stack.push_async_callback(frontend.close)
        await frontend.connect()
        await frontend.serve_http(port)
        gateway.open(None, lambda: False, None, lambda: None)
        _LOG.info("listening on %s:%d, workers by %s", options.host, options.port, options.discovery)
        watching = asyncio.ensure_future(_tell_of_models(gateway))
        stack.callback(watching.cancel)
        await done_before(watching, stopping)
        gateway.shut()
        drained = asyncio.ensure_future(gateway.drained())
        await asyncio.wait({drained}, timeout=options.drain_s)
        drained.cancel()
        return 0


async def _tell_of_models(gateway: Gateway) -> None:
    """Log which models there are, as that changes, for ever."""
    known: list[str] = []
    while True:
        models = await gateway.models()
        if models != known:
            _LOG.info("models: %s", ", ".join(models) or "none")
            known = models
        await asyncio.sleep(WATCH_S)


def serve_frontend(options: FrontendOptions) -> int:
    """Run a frontend in this process until it is told to stop. Gives the exit code."""
    import uvloop  # noqa: PLC0415 (only a server needs it)

    with only_the_log():
        return uvloop.run(run(options))
