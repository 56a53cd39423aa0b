"""Dynamo in this process: our worker, where others find it, and the OpenAI frontend on a loopback port."""

import asyncio
import os
import secrets
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import suppress
from typing import Any

from rackscale.core import SpecError
from rackscale.serve.discovery import endpoint_of
from rackscale.serve.kv_events import KvEvents
from rackscale.serve.lost_hosts import notice_lost_hosts
from rackscale.serve.options import FrontendOptions, ServeOptions
from rackscale.specs import DeploymentSpec

CONNECT_LIMIT_S = 10
END_LIMIT_S = 5.0
LOOPBACK = "127.0.0.1"
FRONTEND_PORTS = range(20_000, 32_768)

Generate = Callable[[Mapping[str, Any], Any], AsyncIterator[dict[str, Any]]]


def configure(options: FrontendOptions) -> None:
    """Set what Dynamo reads from the environment; before its first import.

    Its request plane, response plane and event plane would bind whatever address this host has. Errors are
    looked for before a stream's headers are out, so that they can have a status.
    """
    quiet = "off,request_span=off,tower_http=off"
    os.environ.update(
        DYN_TCP_RPC_HOST=options.dynamo_host,
        DYN_TCP_RESPONSE_STREAM_HOST=options.dynamo_host,
        DYN_EVENT_PLANE_HOST=options.dynamo_host,
        DYN_EVENT_PLANE="zmq",
        DYN_SELF_HOST_METADATA=str(int(options.among_others)),
        DYN_HTTP_PRE_COMMIT_ERROR_PEEK_MS="200",
        DYN_HTTP_BODY_LIMIT_MB=str(2 * options.max_body_mib),
        HF_HUB_OFFLINE="1",
    )
    if options.among_others:  # workers hand their tokenizers to frontends that do not have the folder
        os.environ.update(DYN_SYSTEM_HOST=options.dynamo_host, DYN_SYSTEM_PORT="0")
    os.environ.setdefault("DYN_LOG", quiet)
    os.environ.setdefault("ETCD_STARTUP_CONNECT_TIMEOUT_SECONDS", str(CONNECT_LIMIT_S))


def check_parsers(options: ServeOptions) -> None:
    """Raises SpecError where a parser is asked for that Dynamo does not know."""
    from dynamo._core import get_reasoning_parser_names, get_tool_parser_names  # noqa: PLC0415 (slow)

    for option, name, names in (
        ("--tool-call-parser", options.tool_call_parser, get_tool_parser_names),
        ("--reasoning-parser", options.reasoning_parser, get_reasoning_parser_names),
    ):
        if name is not None and name not in (known := sorted(names())):
            raise SpecError(f"{option} {name} is not known", hint=f"give one of {', '.join(known)}")


def free_port() -> int:
    """A port of loopback that nobody has, for the frontend.

    None of those that the kernel gives to outgoing connections: who asks before the frontend listens could
    be given that very port, and would talk to itself.
    """
    while True:
        port = secrets.choice(FRONTEND_PORTS)
        with socket.socket() as probe, suppress(OSError):
            probe.bind((LOOPBACK, port))
            return port


class Frontend:
    """Begins with `connect`. A worker that is served is known to clients from `register` on."""

    def __init__(self, options: FrontendOptions) -> None:
        self._options = options
        self._runtime: Any = None
        self._endpoint: Any = None
        self._tasks: list[asyncio.Future[None]] = []
        self._watching: asyncio.Future[None] | None = None

    async def connect(self) -> None:
        """Join those that share our discovery. Raises SpecError where it does not answer."""
        loop = asyncio.get_running_loop()
        discovery = self._options.discovery.value
        try:
            self._runtime = await asyncio.to_thread(_runtime, loop, discovery)
        except Exception as error:  # noqa: BLE001 (the runtime raises no other)
            raise SpecError(
                f"--discovery {discovery} does not work ({error})", hint="see that it runs and is reachable"
            ) from None
        if self._options.among_others:
            self._watching = asyncio.ensure_future(notice_lost_hosts())

    def serve_worker(self, model: str, generate: Generate) -> None:
        """Serve the worker's endpoint."""
        self._endpoint = self._runtime.endpoint(endpoint_of(model))
        serving = self._endpoint.serve_endpoint(generate, graceful_shutdown=False)
        self._tasks.append(asyncio.ensure_future(serving))

    async def serve_http(self, port: int) -> None:
        """Serve the HTTP frontend, for our worker alone or for all that are known.

        Where there are others, requests go where their prefix is, and to another worker where theirs dies.
        """
        from dynamo.llm import (  # noqa: PLC0415 (after `configure`)
            EngineType,
            EntrypointArgs,
            KvRouterConfig,
            RouterConfig,
            RouterMode,
            make_engine,
            run_input,
        )

        others = self._options.among_others
        router = (
            RouterConfig(RouterMode.KV, KvRouterConfig(use_kv_events=True))
            if others
            else RouterConfig(RouterMode.RoundRobin)
        )
        arguments = EntrypointArgs(
            EngineType.Dynamic,
            http_host=LOOPBACK,
            http_port=port,
            router_config=router,
            migration_limit=self._options.migration_limit if others else 0,
        )
        engine = await make_engine(self._runtime, arguments)
        self._tasks.append(asyncio.ensure_future(run_input(self._runtime, "http", engine)))

    async def register(
        self, options: ServeOptions, deployment: DeploymentSpec, kv_events: KvEvents | None
    ) -> None:
        """Make the worker's model known. kv_events: that are to be told, if any."""
        from dynamo.llm import (  # noqa: PLC0415 (after `configure`)
            KvEventPublisher,
            ModelInput,
            ModelRuntimeConfig,
            ModelType,
            WorkerType,
            register_model,
        )

        groups = deployment.groups
        config = ModelRuntimeConfig()
        config.context_length = deployment.max_model_len
        config.total_kv_blocks = sum(group.num_blocks * group.num_seats for group in groups)
        config.max_num_seqs = sum(group.max_running * group.num_seats for group in groups)
        config.max_num_batched_tokens = max(group.max_batched_tokens for group in groups)
        config.tool_call_parser = options.tool_call_parser
        config.reasoning_parser = options.reasoning_parser
        if kv_events is not None:
            # A router that comes later asks the worker for what it has missed.
            config.enable_local_indexer = True
            kv_events.publisher = KvEventPublisher(
                self._endpoint,
                kv_block_size=deployment.block_size,
                dp_rank=0,  # whichever of our ranks has a block: which one takes a request is the engine's
                enable_local_indexer=True,
            )
        await register_model(
            ModelInput.Tokens,
            ModelType.Chat | ModelType.Completions,
            self._endpoint,
            str(options.model.resolve()),
            options.name,
            worker_type=WorkerType.Aggregated,
            kv_cache_block_size=deployment.block_size,
            runtime_config=config,
            ignore_weights=True,
        )

    async def withdraw(self) -> None:
        """No new requests from other processes' frontends."""
        if self._endpoint is not None and self._options.among_others:
            await self._endpoint.unregister_endpoint_instance()

    async def close(self) -> None:
        """Shut Dynamo down, within a limit."""
        if self._runtime is None:
            return
        if self._watching is not None:
            self._watching.cancel()
        self._runtime.shutdown()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=END_LIMIT_S)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


def _runtime(loop: asyncio.AbstractEventLoop, discovery: str) -> Any:
    """May wait for discovery to answer."""
    from dynamo.runtime import DistributedRuntime  # noqa: PLC0415 (after `configure`)

    return DistributedRuntime(loop, discovery, "tcp", event_plane="zmq")
