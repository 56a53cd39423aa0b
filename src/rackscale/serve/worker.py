"""The worker that Dynamo calls: a request as a dict comes in, a stream of dicts goes out."""

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from typing import Any, Protocol

from rackscale.checkpoint import Metadata
from rackscale.core import Finish, RackscaleError, RefuseReason, Request
from rackscale.runtime.answer import TokenLogprobs
from rackscale.runtime.sampling import GuideChecker
from rackscale.serve.desk import Desk
from rackscale.serve.migration import undo
from rackscale.serve.stream import Lost, Part, Refused, Stream
from rackscale.serve.translate import translate

_LOG = logging.getLogger("rackscale.serve")


class Context(Protocol):
    """What Dynamo says of a request besides its body."""

    def id(self) -> str:
        """Unique among all requests."""
        ...

    def async_killed_or_stopped(self) -> Any:
        """Awaits the client's going."""
        ...


class Worker:
    """Serves requests at one desk. stream_interval_s: see `ServeOptions`."""

    def __init__(
        self,
        desk: Desk,
        metadata: Metadata,
        max_model_len: int,
        guides: GuideChecker | None,
        stream_interval_s: float,
    ) -> None:
        self._desk, self._metadata, self._max_model_len, self._guides = desk, metadata, max_model_len, guides
        self._interval_s = stream_interval_s

    async def generate(self, body: Mapping[str, Any], context: Context) -> AsyncIterator[dict[str, Any]]:
        """Parts of the answer, each of one choice.

        Raises Dynamo's InvalidArgument, which becomes a 400 with its sentence, and HttpError.
        """
        from dynamo.llm.exceptions import HttpError, InvalidArgument  # noqa: PLC0415 (set up first)

        try:
            asked, emitted = undo(body)
            requests = await self._requests(asked, context)
        except RackscaleError as error:
            raise InvalidArgument(str(error)) from None
        stream = Stream(len(requests), self._interval_s, asyncio.get_running_loop().time)
        gone = asyncio.ensure_future(self._cancel_when_gone(requests, context))
        try:
            self._desk.submit(requests, stream, emitted)
            async for part in stream.parts():
                yield _chunk(part)
        except Refused as refused:
            sentence = f"{refused.refusal.what}: {refused.refusal.hint}"
            if refused.refusal.reason == RefuseReason.INVALID:
                raise InvalidArgument(sentence) from None
            raise HttpError(503, sentence) from None
        except Lost as lost:
            raise HttpError(503, str(lost)) from None
        except Exception:
            _LOG.exception("request %s failed", context.id())
            raise
        finally:
            gone.cancel()
            self._desk.cancel(requests)

    async def _requests(self, body: Mapping[str, Any], context: Context) -> tuple[Request, ...]:
        requests = translate(
            body,
            context.id(),
            defaults=self._metadata.generation,
            vocab_size=self._metadata.spec.vocab_size,
            max_model_len=self._max_model_len,
        )
        guide = requests[0].sampling.guide
        if guide is not None and self._guides is not None:
            await asyncio.to_thread(self._guides.check, guide)
        return requests

    async def _cancel_when_gone(self, requests: tuple[Request, ...], context: Context) -> None:
        await context.async_killed_or_stopped()
        self._desk.cancel(requests)


def _chunk(part: Part) -> dict[str, Any]:
    chunk: dict[str, Any] = {"token_ids": part.tokens, "index": part.index}
    if part.logprobs:
        chunk["log_probs"] = [entry.logprob for entry in part.logprobs]
        chunk["top_logprobs"] = [_top(entry) for entry in part.logprobs]
    if part.finish is not None:
        chunk["finish_reason"] = part.finish.reason.value
        chunk["completion_usage"] = _usage(part.finish)
    return chunk


def _usage(finish: Finish) -> dict[str, Any]:
    return {
        "prompt_tokens": finish.num_prompt,
        "completion_tokens": finish.num_output,
        "total_tokens": finish.num_prompt + finish.num_output,
        "prompt_tokens_details": {"cached_tokens": finish.num_cached},
    }


def _top(entry: TokenLogprobs) -> list[dict[str, Any]]:
    return [
        {"rank": rank, "token_id": token, "token": None, "logprob": logprob, "bytes": None}
        for rank, (token, logprob) in enumerate(entry.top, start=1)
    ]
