"""What clients ask, and what they get."""

import itertools
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from http.client import HTTPException
from math import isclose

from live_server import LiveServer

STARTS = (
    "It is a truth universally",
    "She had been",
    "The family of Dashwood",
    "Mr. Darcy looked at",
    "No one who had ever seen",
    "He could not",
    "The evening was",
    "I have not the pleasure",
)
KINDS = (
    {"temperature": 0},
    {"temperature": 1, "seed": 7},
    {"temperature": 1, "seed": 8, "n": 2},
    {"temperature": 0, "logprobs": 2},
)
LONGEST, SHORTEST = 24, 8
NEAR = 1e-4


def questions() -> list[dict[str, object]]:
    """Greedy, seeded, of two choices and with logprobs; of several lengths."""
    lengths = itertools.cycle(range(SHORTEST, LONGEST + 1, 4))
    return [
        {"prompt": start, "max_tokens": length, **kind}
        for (start, kind), length in zip(itertools.product(STARTS, KINDS), lengths, strict=False)
    ]


@dataclass(kw_only=True, slots=True)
class Answer:
    """Of one question. texts, logprobs: by choice. times: of all that came, and of the question itself."""

    texts: dict[int, str] = field(default_factory=dict)
    logprobs: dict[int, list[float]] = field(default_factory=dict)
    ends: dict[int, str] = field(default_factory=dict)
    num_tokens: int = 0
    times: list[float] = field(default_factory=list)
    error: str | None = None

    def is_same(self, other: "Answer") -> bool:
        """Exactly the same tokens, and logprobs that are as near as sums in another order are."""
        return (
            (self.texts, self.ends, self.num_tokens) == (other.texts, other.ends, other.num_tokens)
            and self.logprobs.keys() == other.logprobs.keys()
            and all(
                len(mine) == len(other.logprobs[index])
                and all(map(partial(isclose, abs_tol=NEAR), mine, other.logprobs[index]))
                for index, mine in self.logprobs.items()
            )
        )

    @property
    def is_whole(self) -> bool:
        return self.error is None and bool(self.ends) and self.ends.keys() == self.texts.keys()

    def gaps(self) -> Iterator[tuple[float, float]]:
        """From when to when nothing came."""
        return itertools.pairwise(self.times)


def ask(server: LiveServer, question: dict[str, object]) -> Answer:
    """The whole answer to one question, or as much as came."""
    answer = Answer(times=[time.monotonic()])
    try:
        with server.stream(**question, stream_options={"include_usage": True}) as chunks:
            for chunk in chunks:
                answer.times.append(time.monotonic())
                _take(answer, chunk)
    except (OSError, HTTPException, AssertionError) as error:
        answer.error = repr(error)
    return answer


def _take(answer: Answer, chunk: dict) -> None:
    if "error" in chunk:
        answer.error = json.dumps(chunk)
        return
    if chunk.get("usage"):
        answer.num_tokens = chunk["usage"]["completion_tokens"]
    for choice in chunk["choices"]:
        index = choice["index"]
        answer.texts[index] = answer.texts.get(index, "") + choice["text"]
        if choice.get("logprobs"):
            answer.logprobs.setdefault(index, []).extend(choice["logprobs"]["token_logprobs"])
        if choice.get("finish_reason"):
            answer.ends[index] = choice["finish_reason"]


class Clients:
    """Threads that ask one question after the other. done: told of each answer, in their threads."""

    def __init__(self, server: LiveServer, num_clients: int, done: Callable[[int, Answer], None]) -> None:
        self._server, self._done, self._questions = server, done, questions()
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(num_clients)]
        self._numbers: Iterator[int] = iter(())
        self._lock = threading.Lock()

    def ask_all(self, num_requests: int) -> None:
        """That many questions, all answered when this returns."""
        self._numbers = iter(range(num_requests))
        for thread in self._threads:
            thread.start()
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        while True:
            with self._lock:
                number = next(self._numbers, None)
            if number is None:
                return
            which = number % len(self._questions)
            self._done(which, ask(self._server, self._questions[which]))
