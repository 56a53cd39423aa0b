"""What every trace's reader shares: lines, and what their numbers must keep to."""

from collections.abc import Iterator
from pathlib import Path

from rackscale.core import SpecError
from rackscale.simulate.load.limits import positive


class TraceFile:
    """A trace read line by line, and the place of what is wrong. Raises SpecError for no speed above 0."""

    def __init__(self, path: Path, *, speed: float, max_prompt: int) -> None:
        positive("a speed", speed)
        self._path = path
        self._speed = speed
        self._max_prompt = max_prompt
        self._line = 0
        self._last_s = 0.0

    def lines(self) -> Iterator[str]:
        """Each line without its end. Raises SpecError where the file cannot be read."""
        try:
            with self._path.open(encoding="utf-8") as file:
                for self._line, line in enumerate(file, 1):
                    yield line.rstrip("\r\n")
        except OSError as error:
            raise SpecError(
                f"{self._path} cannot be read ({error.strerror})", hint="give another file"
            ) from None
        except UnicodeDecodeError:
            raise SpecError(f"{self._path} is no text", hint="give another file") from None

    def wrong(self, what: str, *, hint: str) -> SpecError:
        """The error that names the file and the line."""
        return SpecError(f"{self._path}, line {self._line}: {what}", hint=hint)

    def empty(self) -> SpecError:
        """The error of a file without requests."""
        return SpecError(f"{self._path} holds no requests", hint="give a trace with a request a line")

    def time_s(self, time_s: float) -> float:
        """The time at the trace's speed. Raises SpecError where it is negative or before the line above's."""
        if time_s < 0:
            raise self.wrong(f"a time of {time_s} s is negative", hint="count times from the first request")
        if time_s < self._last_s:
            raise self.wrong(
                f"a time of {time_s} s comes after {self._last_s} s", hint="sort the trace by time"
            )
        self._last_s = time_s
        return time_s / self._speed

    def check_lengths(self, num_prompt: int, num_output: int) -> None:
        """Raise SpecError for less than a token, and for a prompt beyond the limit."""
        if num_prompt < 1 or num_output < 1:
            raise self.wrong(
                f"{num_prompt} tokens of prompt and {num_output} of answer", hint="each has one token or more"
            )
        if num_prompt > self._max_prompt:
            raise self.wrong(
                f"a prompt of {num_prompt} tokens passes the limit of {self._max_prompt}",
                hint="leave the line out, or give a model with a longer context",
            )
