"""One server, from its start to its end."""

import asyncio
import logging
import os
import secrets
import time
from contextlib import AsyncExitStack
from typing import Any

from rackscale.checkpoint import Metadata, open_metadata
from rackscale.core import SpecError
from rackscale.engine import build
from rackscale.runtime.messages import Load
from rackscale.runtime.rank_host import TOKEN_VARIABLE
from rackscale.runtime.sampling import GuideChecker
from rackscale.serve.console import only_the_log
from rackscale.serve.desk import Desk
from rackscale.serve.discovery import check_discovery
from rackscale.serve.engine_messages import Configure
from rackscale.serve.frontend import Frontend, check_parsers, configure, free_port
from rackscale.serve.gateway import Gateway
from rackscale.serve.kv_events import KvEvents
from rackscale.serve.metrics import Metrics
from rackscale.serve.options import ServeOptions
from rackscale.serve.stopping import done_before, stop_on_signals
from rackscale.serve.supervisor import Supervisor
from rackscale.serve.worker import Worker
from rackscale.specs import DeploymentSpec, GroupSpec, lay_out, layout_of, read_deployment

TELL_LIMIT_S = 2.0
DRAIN_POLL_S = 0.02

_LOG = logging.getLogger("rackscale.serve")


async def run(options: ServeOptions, stderr: int | None = None) -> int:
    """Serve until told to stop, and give the exit code. stderr: the children's, a descriptor; None: ours.

    Raises SpecError on a broken checkpoint, an option that does not fit or an address that is taken;
    RankLostError where processes die again and again.
    """
    started_s = time.monotonic()
    stop = stop_on_signals()
    async with AsyncExitStack() as stack:
        stopping = asyncio.ensure_future(stop.wait())
        stack.callback(stopping.cancel)
        metadata = open_metadata(options.model)
        check_discovery(options.discovery)
        configure(options)
        check_parsers(options)
        deployment = _deployment(metadata, options)
        build(deployment)  # what an engine would refuse is refused before anything starts
        _check_log(options)
        port = free_port() if options.frontend else None
        gateway = Gateway(options, port, options.name)
        stack.push_async_callback(gateway.close)
        await gateway.start()
        _LOG.info("loading %s (%.1f MiB)", options.model, metadata.num_bytes / 2**20)
        metrics = Metrics()
        kv_events = KvEvents() if options.among_others else None
        desk = Desk(metrics, kv_events)
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
        frontend = Frontend(options)
        stack.push_async_callback(frontend.close)
        await frontend.connect()
        if port is not None:
            await frontend.serve_http(port)
        starting = asyncio.ensure_future(asyncio.shield(supervisor.started))
        if not await done_before(starting, stopping, running):
            return running.result() or 0 if running.done() else 0
        frontend.serve_worker(options.name, worker.generate)
        await frontend.register(options, deployment, kv_events)
        answering = gateway.answers() if options.frontend else asyncio.sleep(0)
        if not await done_before(asyncio.ensure_future(answering), stopping, running):
            return running.result() or 0 if running.done() else 0
        gateway.open(
            metrics,
            lambda: desk.num_waiting >= deployment.max_waiting and not options.among_others,
            metadata.spec.vocab_size,
            lambda: supervisor.rack,
        )
        started = starting.result()
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
        await frontend.withdraw()
        await _drain(options, desk, gateway, running)
        return 0


def _in_words(group: GroupSpec) -> str:
    """Such as "2 decode ranks"."""
    return f"{group.num_ranks} {group.role.value} rank{'s' if group.num_ranks > 1 else ''}"


async def _drain(options: ServeOptions, desk: Desk, gateway: Gateway, running: asyncio.Future[Any]) -> None:
    """Let requests finish, and tell those that cannot. Raises what ended the supervisor."""
    gateway.shut()
    drained: asyncio.Future[Any] = asyncio.ensure_future(_drained(gateway, desk))
    if not running.done():
        _LOG.info("draining: running requests have %g s to finish", options.drain_s)
        await asyncio.wait({running, drained}, timeout=options.drain_s, return_when=asyncio.FIRST_COMPLETED)
    if not drained.done() and options.frontend:  # if not, frontends elsewhere give them to other workers
        desk.end_all("the engine is gone; try again" if running.done() else "the server is shutting down")
        await asyncio.wait({drained}, timeout=TELL_LIMIT_S)
    drained.cancel()
    if running.done():
        running.result()


async def _drained(gateway: Gateway, desk: Desk) -> None:
    """Until nobody waits, here or at another process's frontend."""
    await gateway.drained()
    while not desk.is_idle:  # noqa: ASYNC110 (polled only at the end)
        await asyncio.sleep(DRAIN_POLL_S)


def _deployment(metadata: Metadata, options: ServeOptions) -> DeploymentSpec:
    if options.deployment is not None:
        return layout_of(
            read_deployment(options.deployment),
            metadata.spec,
            name=options.name,
        )
    return lay_out(
        metadata.spec,
        name=options.name,
        layout=options.layout,
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
            weights=options.weights,
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
        kv_events=options.among_others,
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


def serve(options: ServeOptions) -> int:
    """Run a server in this process until it is told to stop. Gives the exit code."""
    import uvloop  # noqa: PLC0415 (only a server needs it)

    with only_the_log() as stderr:
        return uvloop.run(run(options, stderr))
