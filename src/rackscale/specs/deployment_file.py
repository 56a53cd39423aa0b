"""Deployment files: a deployment as a person writes it, in TOML, before the model is known.

    version = 1

    [deployment]
    model = "models/austen-moe"

    [[group]]
    role = "mixed"
    num_ranks = 4

What is left out is as `serve` has it without a file. A table [plan] is what `plan` found for a large
system; it is not looked into here. `layout_of` turns a file and a model into the
`DeploymentSpec` that an engine is built from.
"""

import json
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from difflib import get_close_matches
from math import ceil
from pathlib import Path, PurePath
from typing import Any

from rackscale.core import SpecError
from rackscale.specs.deployment import DeploymentSpec, GroupSpec, Role
from rackscale.specs.heads import num_kv_copies, share_heads
from rackscale.specs.model import ModelSpec
from rackscale.specs.sizing import (
    BYTES_PER_GIB,
    DEFAULT_BLOCK_SIZE,
    DEFAULT_KV_GIB,
    DEFAULT_MAX_BATCHED_TOKENS,
    DEFAULT_MAX_RUNNING,
)

VERSION = 1
MOST_RANKS = 1 << 16  # of all groups together; more is a slip of the finger
MOST = 1 << 40  # of anything, likewise


@dataclass(frozen=True, kw_only=True, slots=True)
class GroupEntry:
    """`count` groups that are alike, each of `num_ranks` ranks.

    kv_gib: the KV cache of each rank. num_blocks: the same in blocks. Neither: what its rows need, and at
    most its share of the `DEFAULT_KV_GIB` of all ranks. The rest is as in `GroupSpec`.
    """

    role: Role = Role.MIXED
    count: int = 1
    num_ranks: int = 1
    tp: int = 1
    kv_gib: float | None = None
    num_blocks: int | None = None
    max_running: int = DEFAULT_MAX_RUNNING
    max_batched_tokens: int = DEFAULT_MAX_BATCHED_TOKENS
    redundant_experts: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class DeploymentFile:
    """A deployment file's contents. model: a folder. max_model_len None: the model's own limit."""

    model: str
    block_size: int = DEFAULT_BLOCK_SIZE
    max_model_len: int | None = None
    max_waiting: int = 1024
    groups: tuple[GroupEntry, ...]

    @property
    def num_ranks(self) -> int:
        """Of all groups together."""
        return sum(group.count * group.num_ranks for group in self.groups)

    @property
    def num_seats(self) -> int:
        """Ranks that have rows of their own."""
        return sum(group.count * (group.num_ranks // group.tp) for group in self.groups)


def read_deployment(path: Path) -> DeploymentFile:
    """Read a file. Raises SpecError naming the file, and the table and the key that is wrong."""
    try:
        text = path.read_bytes().decode()
    except OSError as error:
        raise SpecError(f"{path} cannot be read ({error.strerror})", hint="give a deployment file") from None
    except UnicodeDecodeError:
        raise SpecError(f"{path} is no UTF-8", hint="give a deployment file in TOML") from None
    return parse_deployment(text, source=str(path))


def write_deployment(file: DeploymentFile, path: Path) -> None:
    """Write a file that `read_deployment` reads back as it was."""
    path.write_bytes(format_deployment(file).encode())


def parse_deployment(text: str, *, source: str) -> DeploymentFile:
    """The same from a text; source: what to call it. Raises SpecError like `read_deployment`."""
    try:
        root = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise SpecError(f"{source} is no TOML: {error}", hint="mend that line") from None
    _check_keys(root, ("version", "deployment", "group", "plan"), source)
    if not isinstance(root.get("plan", {}), dict):
        raise SpecError(f"{source} has a plan that is no table", hint="write [plan], then its keys")
    version = root.get("version", VERSION)
    if type(version) is not int or version != VERSION:
        raise SpecError(f"{source} has version = {version!r}", hint=f"this release reads {VERSION}")
    deployment = root.get("deployment")
    if not isinstance(deployment, dict) or "model" not in deployment:
        raise SpecError(f"{source} has no [deployment] with a model", hint='add model = "FOLDER" to it')
    values = _values(deployment, _DEPLOYMENT_KEYS, f"{source}, [deployment]")
    tables = root.get("group")
    if not isinstance(tables, list) or not tables:
        raise SpecError(f"{source} has no [[group]]", hint="add one; it may be empty")
    groups = tuple(
        _group(table, f"{source}, [[group]] {number}") for number, table in enumerate(tables, start=1)
    )
    file = DeploymentFile(**values, groups=groups)
    _check_pools(file, source)
    return file


def format_deployment(file: DeploymentFile) -> str:
    """The file's text: every size, defaults too, so that a later default changes nothing."""
    lines = [f"version = {VERSION}", "", "[deployment]", *_lines(file, _DEPLOYMENT_KEYS)]
    for group in file.groups:
        lines += ["", "[[group]]", *_lines(group, _GROUP_KEYS)]
    return "\n".join(lines) + "\n"


def layout_of(
    file: DeploymentFile, model: ModelSpec, *, name: str | None = None, bytes_per_element: int = 4
) -> DeploymentSpec:
    """The deployment of a model. name None: the model folder's. bytes_per_element: of the KV cache.

    Redundant experts fill up the slots where experts do not divide by ranks. Ranks that share an
    attention (`tp`) are taken to hold its whole KV each: an upper bound.
    Raises SpecError where a length is beyond the model's, where heads do not divide by tp, or where a rank's
    cache does not hold one sequence of full length.
    """
    length = model.max_positions if file.max_model_len is None else file.max_model_len
    if length > model.max_positions:
        raise SpecError(
            f"max_model_len {length} is beyond the model's {model.max_positions} positions",
            hint=f"give at most {model.max_positions} in [deployment]",
        )
    num_experts = 0 if model.moe is None else model.moe.router.num_experts
    bytes_per_block = model.kv_elements_per_token * bytes_per_element * file.block_size
    blocks_per_sequence = -(-length // file.block_size)
    for entry in file.groups:
        share_heads(model.attention, entry.tp)
    num_caches = sum(
        entry.count * entry.num_ranks // entry.tp * num_kv_copies(model.attention, entry.tp)
        for entry in file.groups
    )
    groups: list[GroupSpec] = []
    for number, entry in enumerate(file.groups, start=1):
        num_blocks = _num_blocks(entry, num_caches, bytes_per_block, blocks_per_sequence)
        if num_blocks < blocks_per_sequence:
            needed_gib = ceil(blocks_per_sequence * bytes_per_block * 1000 / BYTES_PER_GIB) / 1000
            raise SpecError(
                f"[[group]] {number}: {num_blocks} KV blocks do not hold one sequence of {length} tokens",
                hint=f"give num_blocks = {blocks_per_sequence} or kv_gib = {needed_gib}, or more;"
                " or a smaller max_model_len",
            )
        num_slots = -(-(num_experts + entry.redundant_experts) // entry.num_ranks) * entry.num_ranks
        group = GroupSpec(
            role=entry.role,
            num_ranks=entry.num_ranks,
            tp=entry.tp,
            redundant_experts=num_slots - num_experts if num_experts else 0,
            num_blocks=num_blocks,
            max_running=entry.max_running,
            max_batched_tokens=entry.max_batched_tokens,
        )
        groups += [group] * entry.count
    return DeploymentSpec(
        model=PurePath(file.model).name if name is None else name,
        groups=tuple(groups),
        block_size=file.block_size,
        max_model_len=length,
        max_waiting=file.max_waiting,
        num_moe_layers=sum(layer.moe for layer in model.layers),
        num_experts=num_experts,
    )


def _num_blocks(entry: GroupEntry, num_caches: int, bytes_per_block: int, blocks_per_sequence: int) -> int:
    if entry.num_blocks is not None:
        return entry.num_blocks
    if entry.kv_gib is not None:
        return int(entry.kv_gib * BYTES_PER_GIB // bytes_per_block)
    most = int(DEFAULT_KV_GIB * BYTES_PER_GIB // (bytes_per_block * num_caches))
    return min(most, entry.max_running * blocks_per_sequence)


# A key's check: gives the value as it is kept, or raises ValueError saying what it should be.
Check = Callable[[object], object]


def _text(value: object) -> object:
    if isinstance(value, str) and value:
        return value
    raise ValueError("a text")


def _role(value: object) -> object:
    if isinstance(value, str) and value in list(Role):
        return Role(value)
    raise ValueError(f"one of {', '.join(Role)}")


def _whole(least: int) -> Check:
    def check(value: object) -> object:
        if type(value) is int and least <= value <= MOST:
            return value
        raise ValueError(f"a whole number, at least {least}")

    return check


def _size(value: object) -> object:
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= MOST:
        return float(value)
    raise ValueError("a number above 0")


_DEPLOYMENT_KEYS: Mapping[str, Check] = {
    "model": _text,
    "block_size": _whole(1),
    "max_model_len": _whole(1),
    "max_waiting": _whole(1),
}
_GROUP_KEYS: Mapping[str, Check] = {
    "role": _role,
    "count": _whole(1),
    "num_ranks": _whole(1),
    "tp": _whole(1),
    "kv_gib": _size,
    "num_blocks": _whole(1),
    "max_running": _whole(1),
    "max_batched_tokens": _whole(1),
    "redundant_experts": _whole(0),
}


def _group(table: object, where: str) -> GroupEntry:
    if not isinstance(table, dict):
        raise SpecError(f"{where} is no table", hint="write [[group]], then its keys")
    entry = GroupEntry(**_values(table, _GROUP_KEYS, where))
    if entry.kv_gib is not None and entry.num_blocks is not None:
        raise SpecError(f"{where} has kv_gib and num_blocks", hint="give one of them")
    if entry.num_ranks % entry.tp:
        raise SpecError(
            f"{where} has num_ranks = {entry.num_ranks} and tp = {entry.tp}", hint="tp must divide num_ranks"
        )
    if entry.max_batched_tokens < entry.max_running:
        raise SpecError(
            f"{where} has max_batched_tokens = {entry.max_batched_tokens} for max_running ="
            f" {entry.max_running}",
            hint="a step must hold a token of every sequence",
        )
    return entry


def _check_pools(file: DeploymentFile, source: str) -> None:
    roles = {group.role for group in file.groups}
    for role, other in ((Role.PREFILL, Role.DECODE), (Role.DECODE, Role.PREFILL)):
        if roles == {role}:
            raise SpecError(
                f"{source} has {role} groups alone", hint=f'add a [[group]] with role = "{other}"'
            )
    if file.num_ranks > MOST_RANKS:
        raise SpecError(f"{source} has {file.num_ranks} ranks", hint=f"give at most {MOST_RANKS}")


def _values(table: Mapping[str, object], keys: Mapping[str, Check], where: str) -> dict[str, Any]:
    _check_keys(table, keys, where)
    values: dict[str, Any] = {}
    for key, value in table.items():
        try:
            values[key] = keys[key](value)
        except ValueError as wanted:
            raise SpecError(f"{where} has {key} = {_shown(value)}", hint=f"give {wanted}") from None
    return values


def _check_keys(table: Mapping[str, object], known: Mapping[str, Any] | tuple[str, ...], where: str) -> None:
    for key in table:
        if key not in known:
            near = get_close_matches(key, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"
            raise SpecError(f"{where} has an unknown key {key!r}", hint=hint)


def _shown(value: object) -> str:
    return json.dumps(value, default=str)


def _lines(values: DeploymentFile | GroupEntry, keys: Mapping[str, Check]) -> list[str]:
    present = {field.name: getattr(values, field.name) for field in fields(values)}
    return [f"{key} = {toml_value(present[key])}" for key in keys if present[key] is not None]


def toml_value(value: str | float) -> str:
    """A text or a number as TOML has it."""
    if isinstance(value, str):
        return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")
    return repr(value)
