"""TOML tables that know which file they are from, and catalog files by name or by path."""

import json
import math
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from rackscale.core import SpecError

KINDS = ("models", "systems", "chips")
MAX_WHOLE_FLOAT = 2**53  # whole numbers beyond are not all floats


class Table:
    """A TOML table, each field read with its kind checked. where: the file and the table, for messages.
    `close` refuses fields that nothing has asked for."""

    def __init__(self, values: Mapping[str, Any], where: str) -> None:
        self.values, self.where = values, where
        self._asked: set[str] = set()

    def get(self, name: str) -> object:
        """The field, or None where it is absent."""
        self._asked.add(name)
        return self.values.get(name)

    def text(self, name: str, default: str | None = None) -> str:
        """A text; without a default it must be there and not be empty."""
        value = self.get(name)
        if value is None and default is not None:
            return default
        if isinstance(value, str) and (value or default == ""):
            return value
        raise self._error(name, value, "a text")

    def choice(self, name: str, options: Sequence[str], default: str | None = None) -> str:
        """One of the options."""
        value = self.text(name, default)
        if value not in options:
            raise SpecError(f"{name} in {self.where} is {value!r}", hint=closest(value, options, "give"))
        return value

    def flag(self, name: str, *, default: bool = False) -> bool:
        """Either true or false."""
        value = self.get(name)
        if value is None:
            return default
        if isinstance(value, bool):
            return value
        raise self._error(name, value, "true or false")

    def whole(self, name: str, default: int | None = None, *, least: int = 1) -> int:
        """A whole number."""
        value = self.get(name)
        if value is None and default is not None:
            return default
        if type(value) is int and least <= value < MAX_WHOLE_FLOAT:
            return value
        raise self._error(name, value, f"a whole number, at least {least}")

    def number(self, name: str, default: float | None = None) -> float:
        """A number above 0."""
        value = self.get(name)
        if value is None and default is not None:
            return default
        number = _number(value)
        if number is None or number <= 0:
            raise self._error(name, value, "a number above 0")
        return number

    def number_or_text(self, name: str) -> float | str:
        """A number, or a text that is not empty."""
        value = self.get(name)
        if isinstance(value, str) and value:
            return value
        number = _number(value)
        if number is None:
            raise self._error(name, value, "a number")
        return number

    def wholes(self, name: str, *, least: int) -> tuple[int, ...]:
        """Whole numbers; () where there are none."""
        value = self.get(name)
        if value is None:
            return ()
        if isinstance(value, list) and all(type(entry) is int and entry >= least for entry in value):
            return tuple(value)
        raise self._error(name, value, f"a list of whole numbers, at least {least}")

    def sub(self, name: str, *, required: bool = True) -> "Table | None":
        """A table of this one; None where it is absent and need not be there."""
        value = self.get(name)
        if value is None and not required:
            return None
        if isinstance(value, dict):
            return Table(value, self._inside(name))
        raise self._error(name, value, "a table")

    def need(self, name: str) -> "Table":
        """A table of this one that must be there."""
        table = self.sub(name)
        assert table is not None
        return table

    def subs(self) -> Iterator[tuple[str, "Table"]]:
        """All fields by name, which must be tables."""
        return ((name, self.need(name)) for name in self.values)

    def close(self) -> None:
        """Raises SpecError where there is a field that nothing has asked for."""
        for name in self.values:
            if name not in self._asked:
                hint = closest(name, sorted(self._asked - self.values.keys()), "leave it out, or give")
                raise SpecError(f"{self.where} has an unknown {name!r}", hint=hint)

    def _inside(self, name: str) -> str:
        file, _, inside = self.where.partition(", [")
        return f"{file}, [{inside[:-1]}.{name}]" if inside else f"{file}, [{name}]"

    def _error(self, name: str, value: object, wanted: str) -> SpecError:
        if value is None:
            return SpecError(f"{self.where} has no {name}", hint=f"add it: {wanted}")
        shown = json.dumps(value, default=str)
        return SpecError(f"{name} in {self.where} is {shown}", hint=f"it must be {wanted}")


def _number(value: object) -> float | None:
    if type(value) is int and abs(value) < MAX_WHOLE_FLOAT:
        return float(value)
    if type(value) is float and math.isfinite(value):
        return value
    return None


def closest(word: str, options: Iterable[str], verb: str) -> str:
    """A hint: the option that is spelled most like the word, or where none is, all of them."""
    names = list(options)
    match = get_close_matches(word, names, n=1)
    if match:
        return f"{verb} {match[0]}"
    return f"{verb} one of {', '.join(names)}" if names else "leave it out"


@cache
def names(kind: str) -> tuple[str, ...]:
    """What the catalog has of a kind, one of `KINDS`, sorted."""
    folder = files(__package__) / kind
    return tuple(
        sorted(file.name.removesuffix(".toml") for file in folder.iterdir() if file.name.endswith(".toml"))
    )


def is_path(name_or_path: str | Path) -> bool:
    """Whether a file is meant, rather than a name of the catalog."""
    return isinstance(name_or_path, Path) or "/" in name_or_path or name_or_path.endswith(".toml")


def open_table(kind: str, name_or_path: str | Path) -> Table:
    """A catalog file by its name, or a user's by its path.

    Raises SpecError where the catalog has no such name, with the one most like it, and where the file cannot
    be read or is no TOML.
    """
    if is_path(name_or_path):
        return _parse(_read(Path(name_or_path)), str(name_or_path))
    if name_or_path not in names(kind):
        raise SpecError(
            f"the catalog has no {kind.removesuffix('s')} {name_or_path!r}",
            hint=closest(str(name_or_path), names(kind), "give") + ", or a TOML file's path",
        )
    where = f"catalog/{kind}/{name_or_path}.toml"
    return _parse((files(__package__) / kind / f"{name_or_path}.toml").read_bytes(), where)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise SpecError(
            f"{path} cannot be read ({error.strerror})", hint="give a catalog name or a TOML file"
        ) from None


def _parse(content: bytes, where: str) -> Table:
    try:
        return Table(tomllib.loads(content.decode()), where)
    except (ValueError, RecursionError) as error:
        raise SpecError(f"{where} is no TOML: {error}", hint="mend it") from None
