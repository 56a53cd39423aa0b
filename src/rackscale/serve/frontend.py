"""Dynamo in this process: discovery in memory, our worker, and the OpenAI frontend on a loopback port."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

from rackscale.core import SpecError
from rackscale.serve.options import ServeOptions
from rackscale.specs import DeploymentSpec

ENDPOINT = "rackscale.engine.generate"
END_LIMIT_S = 5.0
LOOPBACK = "127.0.0.1"

Generate = Callable[[Mapping[str, Any], Any], AsyncIterator[dict[str, Any]]]


def configure(options: ServeOptions) -> None:
    """Set what Dynamo reads from the environment; before its first import.

    Its request plane, response plane and event plane would bind this host's own address. Errors are
    looked for before a stream's headers are out, so that they can have a status.
    """
    quiet = "off,request_span=off,tower_http=off"
    os.environ.update(
        DYN_TCP_RPC_HOST=LOOPBACK,
        DYN_TCP_RESPONSE_STREAM_HOST=LOOPBACK,
        DYN_EVENT_PLANE_HOST=LOOPBACK,
        DYN_EVENT_PLANE="zmq",
        DYN_SELF_HOST_METADATA="0",
        DYN_HTTP_PRE_COMMIT_ERROR_PEEK_MS="200",
        DYN_HTTP_BODY_LIMIT_MB=str(2 * options.max_body_mib),
        HF_HUB_OFFLINE="1",
    )
    os.environ.setdefault("DYN_LOG", quiet)


def check_parsers(options: ServeOptions) -> None:
    """Raises SpecError where a parser is asked for that Dynamo does not know."""
    from dynamo._core import get_reasoning_parser_names, get_tool_parser_names  # noqa: PLC0415

    for option, name, names in (
        ("--tool-call-parser", options.tool_call_parser, get_tool_parser_names),
        ("--reasoning-parser", options.reasoning_parser, get_reasoning_parser_names),
    ):
        if name is not None and name not in (known := sorted(names())):
            raise SpecError(f"{option} {name} is not known", hint=f"give one of {', '.join(known)}")


class Frontend:
    """Started by `start`; known to clients from `register` on."""

    def __init__(self) -> None:
        self._runtime: Any = None
        self._tasks: list[asyncio.Future[None]] = []

    async def start(self, port: int, generate: Generate) -> None:
        """Serve the worker's endpoint and the HTTP frontend."""
        from dynamo.llm import (  # noqa: PLC0415 (after `configure`)
            EngineType,
            EntrypointArgs,
            RouterConfig,
            RouterMode,
            make_engine,
            run_input,
        )
        from dynamo.runtime import DistributedRuntime  # noqa: PLC0415

        loop = asyncio.get_running_loop()
        self._runtime = DistributedRuntime(loop, "mem", "tcp", event_plane="zmq")
        self._endpoint = self._runtime.endpoint(ENDPOINT)
        serving = self._endpoint.serve_endpoint(generate, graceful_shutdown=False)
        self._tasks.append(asyncio.ensure_future(serving))
        arguments = EntrypointArgs(
            EngineType.Dynamic,
            http_host=LOOPBACK,
            http_port=port,
            router_config=RouterConfig(RouterMode.RoundRobin),
        )
        engine = await make_engine(self._runtime, arguments)
        self._tasks.append(asyncio.ensure_future(run_input(self._runtime, "http", engine)))

    async def register(self, options: ServeOptions, deployment: DeploymentSpec) -> None:
        """Make the model known."""
        from dynamo.llm import (  # noqa: PLC0415 (after `configure`)
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

    async def close(self) -> None:
        """Shut Dynamo down, within a limit."""
        if self._runtime is None:
            return
        self._runtime.shutdown()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=END_LIMIT_S)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
