"""The fields of a config.json, each read with its type checked and its file named when it is wrong."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from rackscale.core import SpecError

T = TypeVar("T", int, float, bool, str)
MAX_WHOLE_FLOAT = 2**53  # whole numbers beyond are not all floats


class Fields:
    """A JSON object that knows which file it is from."""

    def __init__(self, values: Mapping[str, Any], path: Path) -> None:
        self.values, self.path = values, path

    def get(self, name: str, kind: type[T], default: T | None = None) -> T:
        """The field, or the default where it is absent or null. Without a default it must be there."""
        value = self.values.get(name)
        if value is None:
            if default is None:
                raise SpecError(f"{self.path} has no {name}", hint="it is needed for this architecture")
            return default
        if kind is float and type(value) is int and abs(value) < MAX_WHOLE_FLOAT:
            value = float(value)
        if type(value) is not kind or (type(value) is float and not math.isfinite(value)):
            raise SpecError(
                f"{name} in {self.path} is {value!r}", hint=f"it must be of type {kind.__name__}, and finite"
            )
        return value

    def positive(self, name: str, default: float | None = None) -> float:
        """A number above zero."""
        value = self.get(name, float, default)
        if value <= 0:
            raise SpecError(f"{name} in {self.path} is {value}", hint="it must be above 0")
        return value

    def size(self, name: str, default: int | None = None) -> int:
        """A whole number of at least one."""
        value = self.get(name, int, default)
        if value < 1:
            raise SpecError(f"{name} in {self.path} is {value}", hint="it must be at least 1")
        return value

    def optional(self, name: str, kind: type[T]) -> T | None:
        """The field, or None where it is absent or null."""
        return None if self.values.get(name) is None else self.get(name, kind)

    def first_size(self, *names: str) -> int:
        """The first of several spellings of a size that is there."""
        for name in names:
            if self.values.get(name) is not None:
                return self.size(name)
        raise SpecError(f"{self.path} has none of {', '.join(names)}", hint="one of them is needed")

    def sub(self, name: str) -> "Fields | None":
        """A nested object, or None."""
        value = self.values.get(name)
        if value is None:
            return None
        if not isinstance(value, Mapping):
            raise SpecError(f"{name} in {self.path} is {value!r}", hint="it must be an object")
        return Fields(value, self.path)

    def require(self, name: str, *allowed: object) -> None:
        """A field that, where it is there, must be one of the values that this project implements."""
        value = self.values.get(name)
        if value is not None and value not in allowed:
            raise SpecError(
                f"{name} in {self.path} is {value!r}",
                hint=f"supported: {', '.join(map(repr, allowed))}",
            )
