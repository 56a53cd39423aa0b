"""The door: the one public listener, in front of Dynamo's frontend on loopback.

It adds what the frontend cannot: Retry-After on a full queue, readiness that means that the model answers,
the engine's metrics beside the frontend's, errors in the OpenAI API's shape, and the fields of a request
that the frontend would drop without a word (`Extras`). Everything else passes through as it is.
"""

import asyncio
import json
import os
import ssl
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from aiohttp import ClientConnectionError, ClientSession, ClientTimeout, TCPConnector, web
from msgspec import ValidationError, convert

from rackscale.core import RackscaleError, SpecError
from rackscale.serve.metrics import Metrics
from rackscale.serve.migration import add_annotation, annotate
from rackscale.serve.options import FrontendOptions
from rackscale.serve.rack_page import add_rack_routes
from rackscale.serve.rack_state import RackState
from rackscale.serve.translate import Extras

RESPONSES = "/v1/responses"
COMPLETIONS = ("/v1/completions", "/v1/chat/completions")
RETRY_AFTER_S = 1
REFUSED = {
    "echo": "it is not supported; put the prompt in front yourself",
    "suffix": "it is not supported; leave it out",
}
RESPONSE_FIELDS = frozenset(
    {
        "background",
        "conversation",
        "include",
        "input",
        "instructions",
        "max_output_tokens",
        "max_tool_calls",
        "metadata",
        "model",
        "nvext",
        "parallel_tool_calls",
        "previous_response_id",
        "prompt",
        "prompt_cache_key",
        "prompt_cache_retention",
        "reasoning",
        "safety_identifier",
        "service_tier",
        "store",
        "stream",
        "stream_options",
        "temperature",
        "text",
        "tool_choice",
        "tools",
        "top_logprobs",
        "top_p",
        "truncation",
        "user",
    }
)
HOP_HEADERS = frozenset({"connection", "transfer-encoding", "content-length", "host", "keep-alive"})
BYTES_PER_MIB = 1 << 20
ANSWER_LIMIT_S = 60.0
ANSWER_POLL_S = 0.01
END_LIMIT_S = 2.0


class Gateway:
    """Serves from `start` on; hands requests on from `open` on, and no new ones from `shut` on.

    frontend_port: None for a worker whose clients ask elsewhere. model: that is asked for; None: the frontend
    says which there are.
    """

    def __init__(self, options: FrontendOptions, frontend_port: int | None, model: str | None) -> None:
        self._options, self._model = options, model
        self._frontend = None if frontend_port is None else f"http://127.0.0.1:{frontend_port}"
        self._ready = False
        self._draining = False
        self._metrics: Metrics | None = None
        self._is_full: Callable[[], bool] = lambda: False
        self._vocab_size: int | None = None
        self._rack: Callable[[], RackState | None] = lambda: None
        self._num_active = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._session: ClientSession | None = None
        app = web.Application(client_max_size=options.max_body_mib * BYTES_PER_MIB)
        app.router.add_get("/health", self._health)
        app.router.add_get("/ready", self._health)
        app.router.add_get("/live", self._live)
        app.router.add_get("/metrics", self._scrape)
        add_rack_routes(app, lambda: self._rack())  # noqa: PLW0108 (it changes)
        app.router.add_route("*", "/{path:.*}", self._pass)
        self._runner = web.AppRunner(
            app, handler_cancellation=True, access_log=None, shutdown_timeout=END_LIMIT_S
        )

    async def start(self) -> None:
        """Listen. Raises SpecError where the address cannot be had."""
        options = self._options
        self._session = ClientSession(
            connector=TCPConnector(limit=0), timeout=ClientTimeout(total=None), auto_decompress=False
        )
        await self._runner.setup()
        site = web.TCPSite(
            self._runner, options.host, options.port, ssl_context=_tls(options), reuse_address=True
        )
        try:
            await site.start()
        except OSError as error:
            raise SpecError(
                f"{options.host}:{options.port} cannot be listened on ({os.strerror(error.errno or 0)})",
                hint="give another --port or --host",
            ) from None

    async def answers(self) -> None:
        """Wait until a request gets through the frontend to the rank and back.

        Raises RackscaleError where that takes longer than ANSWER_LIMIT_S.
        """
        assert self._session is not None, "start comes first"
        probe = {"model": self._model, "prompt": [0], "max_tokens": 1}
        try:
            async with asyncio.timeout(ANSWER_LIMIT_S):
                while not await self._answers_once(self._session, probe):  # noqa: ASYNC110 (the frontend tells nobody)
                    await asyncio.sleep(ANSWER_POLL_S)
        except TimeoutError:
            raise RackscaleError(
                f"the model did not answer within {ANSWER_LIMIT_S:g} s",
                hint="set DYN_LOG=info to see what the frontend does",
            ) from None

    async def _answers_once(self, session: ClientSession, probe: dict[str, Any]) -> bool:
        try:
            async with session.post(f"{self._frontend}/v1/completions", json=probe) as answer:
                return answer.status == web.HTTPOk.status_code
        except ClientConnectionError:
            return False

    def open(
        self,
        metrics: Metrics | None,
        is_full: Callable[[], bool],
        vocab_size: int | None,
        rack: Callable[[], RackState | None],
    ) -> None:
        """The model answers from here on. vocab_size None: the workers check tokens."""
        self._rack = rack
        self._metrics, self._is_full, self._vocab_size = metrics, is_full, vocab_size
        self._ready = True

    async def drained(self) -> None:
        """Wait until every request has its whole answer."""
        await self._idle.wait()

    def shut(self) -> None:
        """No new requests."""
        self._draining = True

    async def close(self) -> None:
        """Stop listening."""
        await self._runner.cleanup()
        if self._session is not None:
            await self._session.close()

    async def _live(self, _request: web.Request) -> web.Response:
        return web.json_response({"status": "live"})

    async def _health(self, _request: web.Request) -> web.Response:
        if self._ready and not self._draining:
            if self._model is not None:
                return web.json_response({"status": "ready", "model": self._model})
            if models := await self.models():
                return web.json_response({"status": "ready", "models": models})
        return web.json_response({"status": "draining" if self._draining else "loading"}, status=503)

    async def models(self) -> list[str]:
        """What the frontend knows. None where it does not answer."""
        assert self._session is not None, "start comes first"
        with suppress(ClientConnectionError):
            async with self._session.get(f"{self._frontend}/v1/models") as answer:
                return [model["id"] for model in (await answer.json())["data"]]
        return []

    async def _scrape(self, _request: web.Request) -> web.Response:
        own = b"" if self._metrics is None else self._metrics.text()
        theirs = b""
        if self._ready and self._session is not None and self._frontend is not None:
            async with self._session.get(f"{self._frontend}/metrics") as answer:
                theirs = await answer.read()
        return web.Response(body=own + theirs, content_type="text/plain", charset="utf-8")

    async def _pass(self, request: web.Request) -> web.StreamResponse:
        if (closed := self._closed()) is not None:
            return closed
        try:
            body = await request.read()
        except web.HTTPRequestEntityTooLarge:
            return _error(413, f"the body is larger than {self._options.max_body_mib} MiB; shorten it")
        if request.method == "POST" and request.path in (*COMPLETIONS, RESPONSES):
            if self._is_full():
                return _error(503, "the queue is full; try again later", retry=True)
            try:
                body = self._checked(request.path, body)
            except SpecError as error:
                return _error(400, str(error))
        self._num_active += 1
        self._idle.clear()
        try:
            return await self._forward(request, body)
        finally:
            self._num_active -= 1
            if not self._num_active:
                self._idle.set()

    def _closed(self) -> web.Response | None:
        """The answer to every request, while there is only one."""
        if self._frontend is None:
            return _error(404, "this is a worker; ask the frontend")
        if self._draining:
            return _error(503, "the server is shutting down; try another", retry=True)
        if not self._ready:
            return _error(503, "the model is loading; try again", retry=True)
        return None

    def _checked(self, path: str, body: bytes) -> bytes:
        if path == RESPONSES:
            check_response_fields(body)
            return body
        return with_extras(body, self._vocab_size, path if self._options.among_others else None)

    async def _forward(self, request: web.Request, body: bytes) -> web.StreamResponse:
        assert self._session is not None, "start comes first"
        headers = {k: v for k, v in request.headers.items() if k.lower() not in HOP_HEADERS}
        url = f"{self._frontend}{request.path_qs}"
        try:
            async with self._session.request(request.method, url, data=body, headers=headers) as answer:
                if answer.status >= web.HTTPBadRequest.status_code:
                    return _reshape(answer.status, await answer.read())
                kept = {k: v for k, v in answer.headers.items() if k.lower() not in HOP_HEADERS}
                response = web.StreamResponse(status=answer.status, headers=kept)
                await response.prepare(request)
                async for chunk in answer.content.iter_any():
                    await response.write(chunk)
                await response.write_eof()
                return response
        except ClientConnectionError:
            return _error(503, "the frontend is gone; try again", retry=True)


def with_extras(body: bytes, vocab_size: int | None, migrates_at: str | None = None) -> bytes:
    """The same request, with the fields that the frontend drops put into an annotation.

    vocab_size None: tokens are not checked. migrates_at: the path of a request that may come to another
    worker in its middle. What is no JSON object is left to the frontend to refuse. Raises SpecError on a
    field that is not supported or not of its type, and on a prompt's token that is out of the vocabulary.
    """
    fields = _fields(body)
    if fields is None:
        return body
    for name, hint in REFUSED.items():
        if fields.get(name):
            raise SpecError(name, hint=hint)
    if fields.get("guided_choice") == []:
        raise SpecError("guided_choice is empty", hint="give at least one choice")
    if vocab_size is not None:
        _check_tokens(fields.get("prompt"), vocab_size)
    _check_parts(fields.get("messages"))
    moved = {
        name: fields.pop(name) for name in Extras.__struct_fields__ if fields.get(name) not in (None, {}, [])
    }
    if migrates_at is not None:
        annotate(migrates_at, fields)
    elif not moved:
        return body
    try:
        extras = convert(moved, Extras, strict=False)
    except ValidationError as error:
        raise SpecError(f"{', '.join(moved)}: {error}", hint="give it as the API describes it") from None
    if moved:
        add_annotation(fields, extras.annotation())
    return json.dumps(fields).encode()


def check_response_fields(body: bytes) -> None:
    """The frontend ignores what the API of responses does not have. Raises SpecError on such a field."""
    unknown = sorted((_fields(body) or {}).keys() - RESPONSE_FIELDS)
    if unknown:
        raise SpecError(f"{RESPONSES} does not have {', '.join(unknown)}", hint=f"use {COMPLETIONS[1]}")


def _fields(body: bytes) -> dict[str, Any] | None:
    """A body's fields; None where it is no JSON object."""
    try:
        fields: Any = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return fields if isinstance(fields, dict) else None


def _check_parts(messages: Any) -> None:
    """The frontend drops what is not text. What is no list of messages is left to it."""
    for message in messages if isinstance(messages, list) else ():
        parts = message.get("content") if isinstance(message, dict) else None
        for part in parts if isinstance(parts, list) else ():
            if isinstance(part, dict) and part.get("type") not in {None, "text", "refusal"}:
                raise SpecError(f"content of type {part['type']} is not supported", hint="give text")


def _check_tokens(prompt: Any, vocab_size: int) -> None:
    """The frontend's own sentence for this is "Invalid request". What is no token is left to it."""
    if not isinstance(prompt, list):
        return
    for item in prompt:
        if isinstance(item, list):
            _check_tokens(item, vocab_size)
        elif isinstance(item, int) and not 0 <= item < vocab_size:
            raise SpecError(f"token {item} of the prompt", hint=f"the vocabulary is 0 to {vocab_size - 1}")


def _reshape(status: int, body: bytes) -> web.Response:
    """The frontend's error in the OpenAI API's shape. Of a 503 it does not hand on the worker's sentence."""
    if status == web.HTTPServiceUnavailable.status_code:
        return _error(status, "the queue is full or the model is ending; try again later", retry=True)
    try:
        message = json.loads(body)["message"]
    except (ValueError, KeyError, TypeError):
        message = body.decode(errors="replace") or web.Response(status=status).reason or "error"
    return _error(status, message)


def _error(status: int, message: str, *, retry: bool = False) -> web.Response:
    kind = "invalid_request_error" if status < web.HTTPInternalServerError.status_code else "server_error"
    body = {"error": {"message": message, "type": kind, "param": None, "code": status}}
    headers = {"Retry-After": str(RETRY_AFTER_S)} if retry else None
    return web.json_response(body, status=status, headers=headers)


def _tls(options: FrontendOptions) -> ssl.SSLContext | None:
    if options.tls_cert is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(options.tls_cert, options.tls_key)
    except (OSError, ssl.SSLError) as error:
        raise SpecError(
            f"{options.tls_cert} cannot be used ({error})", hint="give --tls-cert and --tls-key in PEM"
        ) from None
    return context
