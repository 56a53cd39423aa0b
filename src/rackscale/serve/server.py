"""One server, from its start to its end."""

import asyncio
import logging
import os
import secrets
import signal
import socket
import time
from contextlib import AsyncExitStack, suppress
from typing import Any

from rackscale.checkpoint import Metadata, open_metadata
from rackscale.core import SpecError
from rackscale.engine import build
from rackscale.runtime.messages import Load
from rackscale.runtime.rank_host import TOKEN_VARIABLE
from rackscale.runtime.sampling import GuideChecker
from rackscale.serve.console import only_the_log
from rackscale.serve.desk import Desk
from rackscale.serve.engine_messages import Configure
from rackscale.serve.frontend import Frontend, check_parsers, configure
from rackscale.serve.gateway import Gateway
from rackscale.serve.metrics import Metrics
from rackscale.serve.options import ServeOptions
from rackscale.serve.supervisor import Supervisor
from rackscale.serve.worker import Worker
from rackscale.specs import DeploymentSpec, GroupSpec, lay_out, layout_of, read_deployment

BYTES_OF = {"auto": 4, "fp32": 4, "bf16": 2}
EXIT_INTERRUPTED = 130
TELL_LIMIT_S = 2.0
FRONTEND_PORTS = range(20_000, 32_768)

_LOG = logging.getLogger("rackscale.serve")


async def run(options: ServeOptions, stderr: int | None = None) -> int:
    """Serve until told to stop, and give the exit code. stderr: the children's, a descriptor; None: ours.

    Raises SpecError on a broken checkpoint, an option that does not fit or an address that is taken;
    RankLostError where processes die again and again.
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
        build(deployment)  # what an engine would refuse is refused before anything starts
        _check_log(options)
        gateway = Gateway(options, port := _free_port())
        stack.push_async_callback(gateway.close)
        await gateway.start()
        _LOG.info("loading %s (%.1f MiB)", options.model, metadata.num_bytes / 2**20)
        metrics = Metrics()
        desk = Desk(metrics)
        token = os.environ.get(TOKEN_VARIABLE) or secrets.token_hex()
        supervisor = Supervisor(
            _configure(options, deployment), token, desk, metrics, has_host=not options.hosts, stderr=stderr
        )
        stack.callback(supervisor.close)
        running = asyncio.ensure_future(supervisor.run())
        stack.callback(running.cancel)
        worker = Worker(
            desk, metadata, deployment.max_model_len, _guides(metadata, stack), options.stream_interval_s
        )
        frontend = Frontend()
        stack.push_async_callback(frontend.close)
        starting = asyncio.gather(supervisor.started, frontend.start(port, worker.generate))
        if not await _done_before(starting, stopping, running):
            return running.result() or 0 if running.done() else 0
        await frontend.register(options, deployment)
        if not await _done_before(asyncio.ensure_future(gateway.answers()), stopping, running):
            return running.result() or 0 if running.done() else 0
        gateway.open(
            metrics,
            lambda: desk.num_waiting >= deployment.max_waiting,
            metadata.spec.vocab_size,
            lambda: supervisor.rack,
        )
        started, _ = starting.result()
        _LOG.info(
            "ready in %.1f s: %s on %s://%s:%d/v1 and /rack, %s (%s kernels, %d threads each, %d blocks)",
            time.monotonic() - started_s,
            options.name,
            "https" if options.tls_cert else "http",
            options.host,
            options.port,
            " + ".join(_in_words(group) for group in deployment.groups),
            started.kernels,
            started.num_threads,
            sum(group.num_blocks * group.num_seats for group in deployment.groups),
        )
        waited: set[asyncio.Future[Any]] = {running, stopping}
        await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
        await _drain(options, desk, gateway, running)
        return 0


def _in_words(group: GroupSpec) -> str:
    """Such as "2 decode ranks"."""
    return f"{group.num_ranks} {group.role.value} rank{'s' if group.num_ranks > 1 else ''}"


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


async def _drain(options: ServeOptions, desk: Desk, gateway: Gateway, running: asyncio.Future[Any]) -> None:
    """Let requests finish, and tell those that cannot. Raises what ended the supervisor."""
    gateway.shut()
    drained: asyncio.Future[Any] = asyncio.ensure_future(gateway.drained())
    if not running.done():
        _LOG.info("draining: running requests have %g s to finish", options.drain_s)
        await asyncio.wait({running, drained}, timeout=options.drain_s, return_when=asyncio.FIRST_COMPLETED)
    if not drained.done():
        desk.end_all("the engine is gone; try again" if running.done() else "the server is shutting down")
        await asyncio.wait({drained}, timeout=TELL_LIMIT_S)
    drained.cancel()
    if running.done():
        running.result()


def _deployment(metadata: Metadata, options: ServeOptions) -> DeploymentSpec:
    bytes_per_element = BYTES_OF[options.activations]
    if options.deployment is not None:
        return layout_of(
            read_deployment(options.deployment),
            metadata.spec,
            name=options.name,
            bytes_per_element=bytes_per_element,
        )
    return lay_out(
        metadata.spec,
        name=options.name,
        layout=options.layout,
        bytes_per_element=bytes_per_element,
        max_model_len=options.max_model_len,
        kv_gib=options.kv_gib,
        block_size=options.block_size,
        max_batched_tokens=options.max_batched_tokens,
        max_running=options.max_running,
        max_waiting=options.max_waiting,
    )


def _configure(options: ServeOptions, deployment: DeploymentSpec) -> Configure:
    own = f"@rackscale-{secrets.token_hex(8)}"
    return Configure(
        load=Load(
            path=None if options.hosts else str(options.model),
            deployment=deployment,
            ranks=(),
            activations=options.activations,
            kernels=options.kernels,
            tokenizer=True,
            wire=options.wire,
            router_skew=options.router_skew,
            hang_limit_s=options.hang_limit_s,
        ),
        addresses=(own,) if options.listen is None else (own, options.listen),
        num_hosts=options.hosts or 1,
        log=None if options.log is None else str(options.log),
        start_limit_s=options.start_limit_s,
    )


def _guides(metadata: Metadata, stack: AsyncExitStack) -> GuideChecker | None:
    if metadata.tokenizer is None:
        return None
    guides = GuideChecker(metadata.tokenizer.path)
    stack.callback(guides.close)
    return guides


def _check_log(options: ServeOptions) -> None:
    if options.log is None:
        return
    try:
        options.log.open("wb").close()
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
