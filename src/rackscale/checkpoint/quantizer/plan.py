"""What will be written, tensor by tensor and shard by shard, from headers alone."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from rackscale.checkpoint.codecs import Part, Plain
from rackscale.checkpoint.metadata import Metadata
from rackscale.checkpoint.quantizer.layouts import Entry, MatrixLayout, OutputFormat, layout
from rackscale.checkpoint.quantizer.scope import Scope, groups_of, roles_in_scope
from rackscale.checkpoint.roles import Source
from rackscale.checkpoint.safetensors_file import TensorEntry
from rackscale.core import SpecError

DTYPES = {"bfloat16": "BF16", "float16": "F16", "float32": "F32"}
NUMBERS_IN = {"U8": 2, "I32": 8, "F8_E4M3": 1}  # one element of a packed tensor


@dataclass(frozen=True, slots=True)
class Matrix:
    """A matrix to be quantised."""

    role: str
    tensor: str
    rows: int
    columns: int
    layout: MatrixLayout


@dataclass(frozen=True, slots=True)
class Quantised:
    """Matrices that share a tensor scale. num_bytes: of what they are read from."""

    matrices: tuple[Matrix, ...]
    num_bytes: int

    @property
    def entries(self) -> tuple[Entry, ...]:
        return tuple(entry for matrix in self.matrices for entry in matrix.layout.entries)


@dataclass(frozen=True, slots=True)
class Decoded:
    """A tensor that is packed in the source, and is to be plain."""

    source: Source
    entry: Entry
    num_bytes: int

    @property
    def entries(self) -> tuple[Entry, ...]:
        return (self.entry,)


@dataclass(frozen=True, slots=True)
class Copied:
    """A tensor that stays as it is, byte by byte."""

    source: TensorEntry

    @property
    def entries(self) -> tuple[Entry, ...]:
        return (Entry(self.source.name, self.source.dtype, self.source.shape),)

    @property
    def num_bytes(self) -> int:
        return self.source.end - self.source.start


Item = Quantised | Decoded | Copied


@dataclass(frozen=True, slots=True)
class ShardPlan:
    """One output file."""

    name: str
    items: tuple[Item, ...]

    @property
    def entries(self) -> tuple[Entry, ...]:
        return tuple(entry for item in self.items for entry in item.entries)


@dataclass(frozen=True, slots=True)
class Plan:
    """quantised and kept: modules, by name. unfit: those in scope whose columns are no whole groups."""

    shards: tuple[ShardPlan, ...]
    quantised: tuple[str, ...]
    kept: tuple[str, ...]
    unfit: tuple[str, ...]
    bytes_before: int

    @property
    def bytes_after(self) -> int:
        """Of all tensors."""
        return sum(entry.num_bytes for shard in self.shards for entry in shard.entries)


def make_plan(
    metadata: Metadata, form: OutputFormat, scope: Scope, *, calibrated: bool, shard_bytes: int
) -> Plan:
    """Raises SpecError where nothing can be quantised."""
    in_scope = roles_in_scope(metadata, scope)
    fit = [role for role in in_scope if metadata.sources[role].shape[1] % form.group == 0]
    if not fit:
        source = metadata.sources[in_scope[0]]
        raise SpecError(
            f"tensor {source.tensor!r} has {source.shape[1]} columns, and no other fits {form.value} either",
            hint=f"columns must be a multiple of {form.group}; give another --format",
        )
    items = _items(metadata, form, groups_of(fit), calibrated=calibrated)
    quantised = {_module(metadata.sources[role].tensor) for role in fit}
    entries = [entry for item in items if not isinstance(item, Quantised) for entry in item.entries]
    kept = {_module(entry.name) for entry in entries if _is_matrix(entry)}
    return Plan(
        shards=_shards(items, shard_bytes),
        quantised=tuple(sorted(quantised)),
        # A head that is the embedding is a module all the same.
        kept=tuple(sorted((kept | {"lm_head"}) - quantised)),
        unfit=tuple(metadata.sources[role].tensor for role in in_scope if role not in set(fit)),
        bytes_before=sum(entry.end - entry.start for entry in metadata.tensors.values()),
    )


def _items(
    metadata: Metadata, form: OutputFormat, groups: Iterable[Sequence[str]], *, calibrated: bool
) -> list[Item]:
    """Everything to be written, in the order in which the source has it."""
    items: list[tuple[TensorEntry, Item]] = []
    read: set[str] = set()
    for roles in groups:
        matrices, entries = [], []
        for role in roles:
            source = metadata.sources[role]
            rows, columns = source.shape
            out = layout(form, source.tensor, rows, columns, calibrated=calibrated)
            matrices.append(Matrix(role, source.tensor, rows, columns, out))
            entries += _entries(metadata, metadata.parts(source))
        read.update(entry.name for entry in entries)
        items.append((entries[0], Quantised(tuple(matrices), _size(entries))))
    for source in _packed_sources(metadata):
        entries = _entries(metadata, metadata.parts(source))
        if not any(entry.name in read for entry in entries):
            plain = Entry(source.tensor, DTYPES.get(metadata.spec.dtype, "F32"), source.shape)
            items.append((entries[0], Decoded(source, plain, _size(entries))))
            read.update(entry.name for entry in entries)
    items += [(entry, Copied(entry)) for entry in metadata.tensors.values() if entry.name not in read]
    items.sort(key=lambda pair: (str(pair[0].file), pair[0].start))
    return [item for _, item in items]


def _packed_sources(metadata: Metadata) -> Iterator[Source]:
    """Matrices that are packed, also those that the model does not use (a layer that predicts tokens ahead).
    Raises SpecError where experts are fused."""
    known = set()
    for source in metadata.sources.values():
        if source.tensor not in known and not isinstance(metadata.scheme.codec(source.tensor), Plain):
            if source.expert is not None:
                raise SpecError(
                    f"tensor {source.tensor!r} in {metadata.path} holds all experts of a layer, packed",
                    hint="only experts in tensors of their own are decoded",
                )
            yield source
        known.add(source.tensor)
    for entry in metadata.tensors.values():
        tensor = entry.name.removesuffix("_packed")
        if tensor.endswith(".weight") and tensor not in known and entry.dtype in NUMBERS_IN:
            source = Source(
                tensor=tensor, shape=(*entry.shape[:-1], entry.shape[-1] * NUMBERS_IN[entry.dtype])
            )
            if not isinstance(metadata.scheme.codec(tensor), Plain):
                yield source


def _shards(items: Sequence[Item], shard_bytes: int) -> tuple[ShardPlan, ...]:
    """Items in order, in files of at most so many bytes where no item alone is larger."""
    files: list[list[Item]] = [[]]
    size = 0
    for item in items:
        more = sum(entry.num_bytes for entry in item.entries)
        if files[-1] and size + more > shard_bytes:
            files.append([])
            size = 0
        files[-1].append(item)
        size += more
    if len(files) == 1:
        return (ShardPlan("model.safetensors", tuple(files[0])),)
    names = (f"model-{number:05}-of-{len(files):05}.safetensors" for number in range(1, len(files) + 1))
    return tuple(ShardPlan(name, tuple(file)) for name, file in zip(names, files, strict=True))


def _entries(metadata: Metadata, parts: Sequence[Part]) -> list[TensorEntry]:
    for part in parts:
        if part.tensor not in metadata.tensors:
            raise SpecError(
                f"{metadata.path} lacks tensor {part.tensor!r}", hint="it is not whole; download it again"
            )
    return [metadata.tensors[part.tensor] for part in parts]


def _size(entries: Iterable[TensorEntry]) -> int:
    return sum(entry.end - entry.start for entry in entries)


def _is_matrix(entry: Entry) -> bool:
    return entry.name.endswith(".weight") and len(entry.shape) > 1


def _module(tensor: str) -> str:
    return tensor.removesuffix(".weight")
