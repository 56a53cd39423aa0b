"""What leaves for one client: tokens of each of its choices, gathered until they are worth a chunk."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

from rackscale.core import Finish, Refuse, TokenId
from rackscale.runtime.answer import TokenLogprobs


@dataclass(kw_only=True, slots=True)
class Part:
    """Tokens of one choice. logprobs: one a token where the client wants them."""

    index: int
    tokens: list[TokenId] = field(default_factory=list)
    logprobs: list[TokenLogprobs] = field(default_factory=list)
    finish: Finish | None = None


class Lost(Exception):  # noqa: N818 (a word of the runtime's)
    """Nobody works for this client any more; the text says why."""


class Stream:
    """Filled by the driver, emptied by one reader. interval_s: how often a chunk may leave."""

    def __init__(self, num_choices: int, interval_s: float, clock: Callable[[], float]) -> None:
        self._interval_s, self._clock = interval_s, clock
        self._parts = [Part(index=index) for index in range(num_choices)]
        self._open = num_choices
        self._woken = asyncio.Event()
        self._last_s = -interval_s
        self._refusal: Refuse | None = None
        self._lost: str | None = None

    def put_token(self, index: int, token: TokenId, logprobs: TokenLogprobs | None) -> None:
        """A choice got a token."""
        part = self._parts[index]
        part.tokens.append(token)
        if logprobs is not None:
            part.logprobs.append(logprobs)
        self._woken.set()

    def put_finish(self, index: int, finish: Finish) -> None:
        """A choice ended."""
        self._parts[index].finish = finish
        self._open -= 1
        self._woken.set()

    def put_refusal(self, refusal: Refuse) -> None:
        """The engine did not take it."""
        self._refusal = refusal
        self._woken.set()

    def lose(self, why: str) -> None:
        """No token will come any more."""
        self._lost = why
        self._woken.set()

    async def parts(self) -> AsyncIterator[Part]:
        """Parts as they are worth sending, until every choice has ended.

        Raises Refused where the engine refused, Lost where it was told so.
        """
        num_ended = 0  # of those that the reader has: a choice may end while the reader holds a part
        while num_ended < len(self._parts):
            await self._woken.wait()
            wait_s = self._last_s + self._interval_s - self._clock()
            if wait_s > 0 and self._open:
                await asyncio.sleep(wait_s)
            self._woken.clear()
            if self._refusal is not None:
                raise Refused(self._refusal)
            if self._lost is not None:
                raise Lost(self._lost)
            self._last_s = self._clock()
            for part in self._take():
                num_ended += part.finish is not None
                yield part

    def _take(self) -> list[Part]:
        full = [part for part in self._parts if part.tokens or part.finish is not None]
        for part in full:
            self._parts[part.index] = Part(index=part.index)
        return full


class Refused(Exception):  # noqa: N818 (a word of the engine's)
    """The engine did not take a request."""

    def __init__(self, refusal: Refuse) -> None:
        super().__init__(refusal.what)
        self.refusal = refusal
