"""One server, from its start to its end."""

import asyncio
import logging
import os
import secrets
import signal
import socket
import time
from contextlib import AsyncExitStack, suppress
from typing import Any, BinaryIO

from rackscale.checkpoint import Metadata, open_metadata
from rackscale.core import SpecError
from rackscale.engine import build
from rackscale.runtime.messages import RankConfig
from rackscale.runtime.sampling import GuideChecker
from rackscale.serve.console import only_the_log
from rackscale.serve.driver import Driver
from rackscale.serve.frontend import Frontend, check_parsers, configure
from rackscale.serve.gateway import Gateway
from rackscale.serve.metrics import Metrics
from rackscale.serve.options import ServeOptions
from rackscale.serve.rank_link import RankLink
from rackscale.serve.worker import Worker
from rackscale.specs import DeploymentSpec, one_rank

BYTES_OF = {"auto": 4, "fp32": 4, "bf16": 2}
EXIT_INTERRUPTED = 130
TELL_LIMIT_S = 2.0
FRONTEND_PORTS = range(20_000, 32_768)

_LOG = logging.getLogger("rackscale.serve")


async def run(options: ServeOptions, stderr: int | None = None) -> int:
    """Serve until told to stop, and give the exit code. stderr: the rank's, a descriptor; None: ours.

    Raises SpecError on a broken checkpoint, an option that does not fit or an address that is taken;
    RankLostError where the rank dies.
    """
    started_s = time.monotonic()
    stop = _stop_on_signals()
    async with AsyncExitStack() as stack:
        stopping = asyncio.ensure_future(stop.wait())
        stack.callback(stopping.cancel)
        metadata = open_metadata(options.model)
        configure(options)
        check_parsers(options)
        deployment = _deployment(metadata, options)
        log = _open_log(options, stack)
        gateway = Gateway(options, port := _free_port())
        stack.push_async_callback(gateway.close)
        await gateway.start()
        link = RankLink(stderr)
        stack.callback(link.close)
        _LOG.info("loading %s (%.1f MiB)", options.model, metadata.num_bytes / 2**20)
        engine = build(deployment)
        metrics = Metrics(engine)
        driver = Driver(engine, link, metrics, log)
        worker = Worker(driver, metadata, _guides(metadata, stack), options.stream_interval_s)
        frontend = Frontend()
        stack.push_async_callback(frontend.close)
        starting = asyncio.gather(
            link.ready(_rank_config(options, deployment)), frontend.start(port, worker.generate)
        )
        if not await _done_before(starting, stopping):
            return 0
        running = asyncio.ensure_future(driver.run())
        stack.callback(running.cancel)
        await frontend.register(options, deployment)
        if not await _done_before(asyncio.ensure_future(gateway.answers()), stopping, running):
            return running.result() if running.done() else 0
        gateway.open(metrics, lambda: engine.num_waiting >= deployment.max_waiting, metadata.spec.vocab_size)
        ready, _ = starting.result()
        _LOG.info(
            "ready in %.1f s: %s on %s://%s:%d/v1 (%s kernels, %d threads, %d KV blocks)",
            time.monotonic() - started_s,
            options.name,
            "https" if options.tls_cert else "http",
            options.host,
            options.port,
            ready.kernels,
            ready.num_threads,
            deployment.groups[0].num_blocks,
        )
        waited: set[asyncio.Future[Any]] = {running, stopping}
        await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
        await _drain(options, driver, gateway, running)
        return 0


async def _done_before(work: asyncio.Future[Any], *others: asyncio.Future[Any]) -> bool:
    """Whether the work was done before all the others; it is cancelled where not. Raises what it raises."""
    waited: set[asyncio.Future[Any]] = {work, *others}
    await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
    if work.done():
        work.result()
        return True
    work.cancel()
    await asyncio.gather(work, return_exceptions=True)
    return False


async def _drain(
    options: ServeOptions, driver: Driver, gateway: Gateway, running: asyncio.Future[Any]
) -> None:
    """Let requests finish, and tell those that cannot. Raises RankLostError where the rank died."""
    gateway.shut()
    drained: asyncio.Future[Any] = asyncio.ensure_future(gateway.drained())
    if not running.done():
        _LOG.info("draining: running requests have %g s to finish", options.drain_s)
        await asyncio.wait({running, drained}, timeout=options.drain_s, return_when=asyncio.FIRST_COMPLETED)
    if not drained.done():
        driver.end_all("the rank died; try again" if running.done() else "the server is shutting down")
        await asyncio.wait({drained}, timeout=TELL_LIMIT_S)
    drained.cancel()
    if running.done():
        running.result()


def _deployment(metadata: Metadata, options: ServeOptions) -> DeploymentSpec:
    return one_rank(
        metadata.spec,
        name=options.name,
        bytes_per_element=BYTES_OF[options.activations],
        max_model_len=options.max_model_len,
        kv_gib=options.kv_gib,
        block_size=options.block_size,
        max_batched_tokens=options.max_batched_tokens,
        max_running=options.max_running,
        max_waiting=options.max_waiting,
    )


def _rank_config(options: ServeOptions, deployment: DeploymentSpec) -> RankConfig:
    (group,) = deployment.groups
    return RankConfig(
        path=str(options.model),
        num_blocks=group.num_blocks,
        block_size=deployment.block_size,
        max_running=group.max_running,
        max_model_len=deployment.max_model_len,
        activations=options.activations,
        kernels=options.kernels,
        tokenizer=True,
    )


def _guides(metadata: Metadata, stack: AsyncExitStack) -> GuideChecker | None:
    if metadata.tokenizer is None:
        return None
    guides = GuideChecker(metadata.tokenizer.path)
    stack.callback(guides.close)
    return guides


def _open_log(options: ServeOptions, stack: AsyncExitStack) -> BinaryIO | None:
    if options.log is None:
        return None
    try:
        return stack.enter_context(options.log.open("wb"))
    except OSError as error:
        raise SpecError(
            f"{options.log} cannot be written ({error.strerror})", hint="give another --log"
        ) from None


def _free_port() -> int:
    """A port of loopback that nobody has, for Dynamo's frontend.

    None of those that the kernel gives to outgoing connections: who asks before the frontend listens could
    be given that very port, and would talk to itself.
    """
    while True:
        port = secrets.choice(FRONTEND_PORTS)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def _stop_on_signals() -> asyncio.Event:
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


def serve(options: ServeOptions) -> int:
    """Run a server in this process until it is told to stop. Gives the exit code."""
    import uvloop  # noqa: PLC0415 (only a server needs it)

    with only_the_log() as stderr:
        return uvloop.run(run(options, stderr))
