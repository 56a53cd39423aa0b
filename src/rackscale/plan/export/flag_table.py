"""The flags that an engine has, as they were read in its source; others cannot be written."""

import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from rackscale.core import SpecError
from rackscale.specs.catalog import closest

Value = bool | int | float | str | Sequence[str] | Mapping[str, Any]

KINDS: Mapping[str, tuple[type, ...]] = {
    "int": (int,),
    "float": (float,),
    "text": (str,),
    "choice": (str,),
    "bool": (bool,),
    "switch": (bool,),
    "texts": (tuple, list),
    "json": (dict,),
}


class Variable(str):
    """A number or a text that the shell knows only when the script runs, as it is written there."""

    __slots__ = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Flag:
    """kind: one of `KINDS`. choices: of a choice. keys: of a JSON object. path and line: where it was read,
    line 0 where only the file is known."""

    name: str
    kind: str
    meaning: str
    path: str
    line: int = 0
    choices: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()

    def refuses(self, value: Value) -> str:
        """What is wrong with a value, in words; nothing where it is one that the flag takes."""
        if isinstance(value, Variable) and self.kind in ("int", "text"):
            return ""
        kinds = KINDS[self.kind]
        if not isinstance(value, kinds) or isinstance(value, bool) != (bool in kinds):
            return f"takes {self.kind}"
        if self.kind == "choice" and value not in self.choices:
            return f"takes one of {', '.join(self.choices)}"
        if isinstance(value, dict) and not value.keys() <= set(self.keys):
            return f"takes the keys {', '.join(self.keys)}"
        return ""


@dataclass(frozen=True, kw_only=True, slots=True)
class FlagTable:
    """A program's flags, with those of the engine that it hands them on to. source: what was read, of the
    stated version."""

    name: str
    program: str
    version: str
    source: str
    repo: str
    flags: Mapping[str, Flag]

    def check(self, flag: str, value: Value) -> None:
        """Raises SpecError where the program has no such flag, or does not take the value."""
        if flag not in self.flags:
            raise SpecError(
                f"{self.program} {self.version} has no {flag}", hint=closest(flag, self.flags, "there is")
            )
        if wrong := self.flags[flag].refuses(value):
            raise SpecError(f"{flag} of {self.program} is {value!r}", hint=f"it {wrong}")


@cache
def load_flags(name: str) -> FlagTable:
    """One of the tables beside this file: "vllm", "sglang", "trtllm", "dynamo-vllm", ..."""
    root = tomllib.loads((files(__package__) / "flags" / f"{name}.toml").read_text(encoding="utf-8"))
    flags = {flag: _flag(flag, entry) for flag, entry in root.get("flags", {}).items()}
    if "extends" in root:
        prefix = root.get("prefix", "")
        engine = load_flags(root["extends"]).flags
        flags = {prefix + flag: entry for flag, entry in engine.items()} | flags
    return FlagTable(
        name=name,
        program=root["program"],
        version=root["version"],
        source=root["source"],
        repo=root["repo"],
        flags=flags,
    )


def _flag(name: str, entry: Mapping[str, Any]) -> Flag:
    return Flag(
        name=name,
        kind=entry["kind"],
        meaning=entry["meaning"],
        path=entry["path"],
        line=entry.get("line", 0),
        choices=tuple(entry.get("choices", ())),
        keys=tuple(entry.get("keys", ())),
    )


class Arguments:
    """A program's flags and their values, each checked against the table as it comes in."""

    def __init__(self, table: FlagTable) -> None:
        self.table = table
        self.values: list[tuple[str, Value]] = []

    def add(self, flag: str, value: Value = True) -> None:  # noqa: FBT002 (a switch's value is on)
        """Once more where it is there already. Raises SpecError as `FlagTable.check`."""
        self.table.check(flag, value)
        self.values.append((flag, value))

    def add_all(self, values: Mapping[str, Value | None]) -> None:
        """Those that are neither None nor a switch that is off."""
        for flag, value in values.items():
            if value is not None and not (value is False and self._is_switch(flag)):
                self.add(flag, value)

    def words(self) -> list[tuple[str, ...]]:
        """A command line's, each flag with its value."""
        return [(flag,) if self._is_switch(flag) else (flag, *_words(value)) for flag, value in self.values]

    def document(self) -> dict[str, Any]:
        """The same as a configuration: flags with dots are nested."""
        root: dict[str, Any] = {}
        for flag, value in self.values:
            *path, last = flag.split(".")
            table = root
            for step in path:
                table = table.setdefault(step, {})
            table[last] = value
        return root

    def _is_switch(self, flag: str) -> bool:
        return flag in self.table.flags and self.table.flags[flag].kind == "switch"


def _words(value: Value) -> list[str]:
    if isinstance(value, dict):
        return [json.dumps(value)]
    if isinstance(value, bool):
        return [str(value).lower()]
    if isinstance(value, list | tuple):
        return list(value)
    return [value if isinstance(value, str) else repr(value)]
