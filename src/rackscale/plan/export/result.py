"""What an export gives: launch files as data, and what they leave out."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rackscale.specs import Role

Manifest = dict[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class PoolHosts:
    """Where a pool runs: each of its groups on so many hosts, with so many GPUs of each."""

    role: Role
    groups: int
    ranks: int
    hosts_per_group: int
    gpus_per_host: int

    @property
    def gpus(self) -> int:
        return self.groups * self.hosts_per_group * self.gpus_per_host


@dataclass(frozen=True, kw_only=True, slots=True)
class LaunchFile:
    """A shell script, or where that is empty, YAML documents. comments: lines that it begins with."""

    name: str
    comments: tuple[str, ...]
    script: str = ""
    documents: tuple[Manifest, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Export:
    """notes: what the target cannot say or what the reader must know, in sentences; they are in the files'
    comments too. versions: of the tables that flags were checked against, by program."""

    target: str
    backend: str
    files: tuple[LaunchFile, ...]
    notes: tuple[str, ...]
    pools: tuple[PoolHosts, ...]
    versions: Mapping[str, str]

    @property
    def gpus(self) -> int:
        """Of all pools; the plan's chips."""
        return sum(pool.gpus for pool in self.pools)
