"""How long prompts and answers are."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from rackscale.core import SpecError
from rackscale.simulate.load.arrival import Arrival
from rackscale.simulate.load.draw import generator
from rackscale.simulate.load.limits import at_least


class Lengths(Protocol):
    """A distribution of prompts' and answers' lengths."""

    def draw(self, num: int, *seed: int) -> NDArray[np.int64]:
        """[num, 2]: tokens of the prompt and of the answer, each 1 or more; the same for the same seed."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class FixedLengths:
    """Every request alike. Raises SpecError below one token."""

    num_prompt: int
    num_output: int

    def __post_init__(self) -> None:
        at_least("a prompt's length", self.num_prompt, 1)
        at_least("an answer's length", self.num_output, 1)

    def draw(self, num: int, *_seed: int) -> NDArray[np.int64]:
        return np.tile(np.array([self.num_prompt, self.num_output], dtype=np.int64), (num, 1))


@dataclass(frozen=True, kw_only=True, slots=True)
class UniformLengths:
    """Prompt and answer apart, each evenly from least_share of its length up to the length.

    InferenceX draws so, from 0.8. Raises SpecError below one token, and for a share outside 0 to 1.
    """

    num_prompt: int
    num_output: int
    least_share: float = 0.8

    def __post_init__(self) -> None:
        at_least("a prompt's length", self.num_prompt, 1)
        at_least("an answer's length", self.num_output, 1)
        if not 0 <= self.least_share <= 1:
            raise SpecError(f"a least share of {self.least_share:g} is not in 0 to 1", hint="give 0.8")

    def draw(self, num: int, *seed: int) -> NDArray[np.int64]:
        most = (self.num_prompt, self.num_output)
        least = [max(1, math.floor(tokens * self.least_share)) for tokens in most]
        return generator(*seed).integers(least, most, size=(num, 2), endpoint=True, dtype=np.int64)


@dataclass(frozen=True, slots=True)
class SeenLengths:
    """The lengths of arrivals seen, drawn evenly and a prompt with its answer. Raises SpecError for none."""

    pairs: NDArray[np.int64]

    def __post_init__(self) -> None:
        if not len(self.pairs):
            raise SpecError("no lengths to draw from", hint="give a trace with requests")

    @classmethod
    def of(cls, arrivals: Iterable[Arrival]) -> "SeenLengths":
        flat = np.fromiter(
            (tokens for arrival in arrivals for tokens in (arrival.num_prompt, arrival.num_output)),
            dtype=np.int64,
        )
        return cls(flat.reshape(-1, 2))

    def draw(self, num: int, *seed: int) -> NDArray[np.int64]:
        return self.pairs[generator(*seed).integers(len(self.pairs), size=num)]
