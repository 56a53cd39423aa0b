"""What a host of a deployment asks of a cluster: memory, and how much of it processes share."""

from dataclasses import dataclass
from math import ceil, inf
from pathlib import Path

from rackscale.checkpoint import Metadata, open_metadata
from rackscale.core import SpecError
from rackscale.specs import DeploymentFile, layout_of
from rackscale.specs.sizing import BYTES_PER_GIB, DEFAULT_KV_GIB

BYTES_PER_ELEMENT = 4  # of activations and KV cache; an upper bound
UNKNOWN_HEAP_GIB = 1.0  # of a rank whose model's width is not known
RANK_GIB = 1  # a process with torch and its scratch
ENGINE_GIB = 2  # engine, gateway and frontend
ENGINE_CPUS = 2


@dataclass(frozen=True, kw_only=True, slots=True)
class Sizes:
    """weights_gib: of the whole model. shared_gib: of a rank, for each of the file's groups in order.

    What a rank shares is its KV cache, from which other groups take blocks, and the boxes of the
    all-to-all: for every rank of its group, its step's tokens out and back.
    """

    weights_gib: float
    shared_gib: tuple[float, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Footprint:
    """Of a host. shared_gib, of /dev/shm, is part of memory_gib: Kubernetes counts it so too."""

    shared_gib: int
    memory_gib: int
    cpus: int


def sizes_of(file: DeploymentFile, *, weights_gib: float | None = None) -> Sizes:
    """From the model's folder if it is here, else from the file and weights_gib.

    Raises SpecError where the folder is not here and a size depends on it, and where the layout does
    not fit the model.
    """
    folder = Path(file.model)
    if folder.is_dir():
        return _measured(file, open_metadata(folder, tokenizer_required=False))
    if weights_gib is None:
        raise SpecError(
            f"{file.model} is not a folder here, so its size is not known",
            hint="give --weights-gib X, or run this where the model is",
        )
    if not 0 < weights_gib < inf:
        raise SpecError(f"--weights-gib is {weights_gib}", hint="give a number above 0")
    shared = tuple(_guessed(file, number) for number in range(len(file.groups)))
    return Sizes(weights_gib=weights_gib, shared_gib=shared)


def _measured(file: DeploymentFile, model: Metadata) -> Sizes:
    deployment = layout_of(file, model.spec, bytes_per_element=BYTES_PER_ELEMENT)
    block_bytes = model.spec.kv_elements_per_token * BYTES_PER_ELEMENT * file.block_size
    row_bytes = model.spec.hidden * BYTES_PER_ELEMENT
    shared: list[float] = []
    first = 0
    for entry in file.groups:
        boxes = 2 * entry.num_ranks * entry.max_batched_tokens * row_bytes
        shared.append((deployment.groups[first].num_blocks * block_bytes + boxes) / BYTES_PER_GIB)
        first += entry.count
    return Sizes(weights_gib=model.num_bytes / BYTES_PER_GIB, shared_gib=tuple(shared))


def _guessed(file: DeploymentFile, number: int) -> float:
    entry = file.groups[number]
    if entry.num_blocks is not None:
        raise SpecError(
            f"[[group]] {number + 1} has num_blocks, and the model that says how large they are is not here",
            hint="give kv_gib instead, or run this where the model is",
        )
    return UNKNOWN_HEAP_GIB + (DEFAULT_KV_GIB / file.num_seats if entry.kv_gib is None else entry.kv_gib)


def host_of_ranks(num_ranks: int, shared_gib: float, weights_gib: float) -> Footprint:
    """A host of so many ranks; shared_gib: of all of them.

    The weights are counted whole, though a host may hold a part of the experts only.
    """
    return Footprint(
        shared_gib=max(1, ceil(shared_gib)),
        memory_gib=ceil(shared_gib + weights_gib) + RANK_GIB * num_ranks,
        cpus=num_ranks,
    )


def with_engine(host: Footprint | None) -> Footprint:
    """A host that the engine is on too, or alone."""
    host = Footprint(shared_gib=1, memory_gib=1, cpus=0) if host is None else host
    return Footprint(
        shared_gib=host.shared_gib,
        memory_gib=host.memory_gib + ENGINE_GIB,
        cpus=host.cpus + ENGINE_CPUS,
    )


def largest(hosts: list[Footprint]) -> Footprint:
    """What any of them would do with."""
    return Footprint(
        shared_gib=max(host.shared_gib for host in hosts),
        memory_gib=max(host.memory_gib for host in hosts),
        cpus=max(host.cpus for host in hosts),
    )
