"""Sessions of many calls, whose prompts grow by what was answered and by what is asked next."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

from rackscale.core import SpecError
from rackscale.simulate.load.arrival import BLOCK_TOKENS, Arrival
from rackscale.simulate.load.draw import generator
from rackscale.simulate.load.lengths import Lengths
from rackscale.simulate.load.limits import at_least, positive
from rackscale.simulate.load.open_load import OpenLoad

STARTS, SHAPE, ASKED, TOOLS = 0, 1, 2, 3  # streams of one seed


@dataclass(frozen=True, slots=True)
class Call:
    """A request sent pause_s after the answer before it, or for the first after the session's start.

    blocks: as of an Arrival, of full blocks only.
    """

    pause_s: float
    num_prompt: int
    num_output: int
    blocks: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Session:
    """Calls one after the other from at_s on; when each but the first arrives depends on the answers."""

    at_s: float
    calls: tuple[Call, ...]
    priority: int = 0

    def arrival(self, call: int, answered_s: float) -> Arrival:
        """The call's arrival where the one before it was answered at answered_s (at_s for the first)."""
        it = self.calls[call]
        return Arrival(answered_s + it.pause_s, it.num_prompt, it.num_output, it.blocks, self.priority)


@dataclass(frozen=True, kw_only=True, slots=True)
class Pauses:
    """Log-normal pauses of a mean, whose deviation is `variation` of it. Raises SpecError below 0."""

    mean_s: float
    variation: float = 1.0

    def __post_init__(self) -> None:
        positive("a mean pause", self.mean_s)
        at_least("a pause's coefficient of variation", self.variation, 0)

    @property
    def log_parameters(self) -> tuple[float, float]:
        """Mean and deviation of the logarithm."""
        variance = math.log1p(self.variation**2)
        return math.log(self.mean_s) - variance / 2, math.sqrt(variance)


@dataclass(frozen=True, kw_only=True, slots=True)
class Sessions:
    """Turns of a user, each a loop of calls with tools between them; a mean of one call is a plain chat.

    The numbers of turns and of a turn's calls are geometric with their means. asked: the user's tokens and
    the answer's; tools: a tool's result and the answer to it. All sessions start with the same system_tokens.
    dropped_share of an answer is reasoning: a turn's calls keep it, and the next turn's prompt leaves it out,
    so that its prefix returns to the turn's first prompt. A session ends before a call of more than
    max_tokens of prompt and answer. Raises SpecError for means below 1, and for what else is out of range.
    """

    asked: Lengths
    think: Pauses
    tools: Lengths
    tool_pause: Pauses
    max_tokens: int
    mean_turns: float = 1.0
    mean_calls: float = 1.0
    system_tokens: int = 0
    dropped_share: float = 0.0
    priority: int = 0

    def __post_init__(self) -> None:
        at_least("a mean number of turns", self.mean_turns, 1)
        at_least("a mean number of calls", self.mean_calls, 1)
        at_least("a number of system tokens", self.system_tokens, 0)
        at_least("a limit of tokens", self.max_tokens, 1)
        if not 0 <= self.dropped_share <= 1:
            raise SpecError(f"a dropped share of {self.dropped_share:g} is not in 0 to 1", hint="give 0")

    def draw(
        self, load: OpenLoad, *, duration_s: float, seed: int, first_block: int = 0
    ) -> Iterator[Session]:
        """Sessions started by the load, in the order of time; those without room for one call are left out.

        Block ids count from first_block on, for other sessions' to stay apart.
        """
        system = tuple(range(first_block, first_block + self.system_tokens // BLOCK_TOKENS))
        free_block = first_block + len(system)
        for index, at_s in enumerate(load.times_s(duration_s, seed, STARTS).tolist()):
            history = _History(self.system_tokens, list(system), free_block)
            calls = tuple(self._calls(history, seed, index))
            free_block = history.free_block
            if calls:
                yield Session(at_s, calls, self.priority)

    def _calls(self, history: "_History", seed: int, index: int) -> Iterator[Call]:
        random = generator(seed, SHAPE, index)
        num_turns = int(random.geometric(1 / self.mean_turns))
        num_calls = random.geometric(1 / self.mean_calls, num_turns).tolist()
        asked = self.asked.draw(num_turns, seed, ASKED, index).tolist()
        tools = iter(self.tools.draw(sum(num_calls) - num_turns, seed, TOOLS, index).tolist())
        for turn, (count, question) in enumerate(zip(num_calls, asked, strict=True)):
            for call in range(count):
                num_new, num_output = next(tools) if call else question
                if not call:
                    history.drop_reasoning()
                if history.num_tokens + num_new + num_output > self.max_tokens:
                    return
                pauses = self.tool_pause if call else self.think
                pause_s = float(random.lognormal(*pauses.log_parameters)) if turn or call else 0.0
                blocks = history.ask(num_new, first=not call)
                yield Call(pause_s, history.num_tokens, num_output, blocks)
                history.answer(num_output, round(num_output * self.dropped_share))


@dataclass(slots=True)
class _History:
    """A session's tokens so far, and the ids of its full blocks."""

    num_tokens: int
    blocks: list[int]
    free_block: int
    num_dropped: int = field(default=0, init=False)
    num_kept: int = field(default=0, init=False)

    def drop_reasoning(self) -> None:
        """Start a turn: what was answered after the last turn's first prompt moves up, into other blocks."""
        if self.num_dropped:
            self.num_tokens -= self.num_dropped
            del self.blocks[self.num_kept // BLOCK_TOKENS :]
            self.num_dropped = 0

    def ask(self, num_tokens: int, *, first: bool) -> tuple[int, ...]:
        """Grow by what is asked; the ids of all full blocks."""
        self.num_tokens += num_tokens
        if first:
            self.num_kept = self.num_tokens
        num_new = self.num_tokens // BLOCK_TOKENS - len(self.blocks)
        self.blocks += range(self.free_block, self.free_block + num_new)
        self.free_block += num_new
        return tuple(self.blocks)

    def answer(self, num_tokens: int, num_dropped: int) -> None:
        """Grow by an answer, of which num_dropped tokens are reasoning."""
        self.num_tokens += num_tokens
        self.num_dropped += num_dropped
