"""All that a folder says of a model, without its weights: spec, tensors, tokenizer, defaults. No torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from rackscale.checkpoint.codecs import Part, Scheme, detect
from rackscale.checkpoint.families import family_of
from rackscale.checkpoint.fields import Fields
from rackscale.checkpoint.generation import GenerationDefaults, read_generation
from rackscale.checkpoint.roles import Source, sources
from rackscale.checkpoint.safetensors_file import TensorEntry
from rackscale.checkpoint.shards import read_json, read_tensors
from rackscale.checkpoint.sizes import check_sizes
from rackscale.checkpoint.tokenizer import Tokenizer, read_tokenizer
from rackscale.core import SpecError
from rackscale.specs import ModelSpec


@dataclass(frozen=True, kw_only=True, slots=True)
class Metadata:
    """scheme: which tensor is in which format. sources: by role. tensors: by name, as the files' headers have
    them."""

    path: Path
    spec: ModelSpec
    scheme: Scheme
    sources: dict[str, Source]
    tensors: dict[str, TensorEntry]
    tokenizer: Tokenizer | None
    generation: GenerationDefaults

    @property
    def num_bytes(self) -> int:
        """Of all tensors that a role is read from."""
        names = {part.tensor for source in self.sources.values() for part in self.parts(source)}
        return sum(self.tensors[name].end - self.tensors[name].start for name in names)

    def parts(self, source: Source) -> tuple[Part, ...]:
        """What the source's tensor is made of in the files."""
        parts = self.scheme.codec(source.tensor).parts(source)
        return tuple(part for part in parts if not part.optional or part.tensor in self.tensors)


def open_metadata(path: Path, *, tokenizer_required: bool = True) -> Metadata:
    """Read and check a folder: config.json, the headers of all safetensors, the tokenizer.

    Every tensor that the model needs is there, and of the right shape and dtype, when this returns.
    Raises SpecError naming the file, and the tensor or field, that is wrong.
    """
    if not path.is_dir():
        raise SpecError(f"{path} is not a folder", hint="give a Hugging Face folder on this machine")
    config = Fields(read_json(path / "config.json"), path / "config.json")
    family = family_of(config)
    spec = family.read(config)
    check_sizes(spec, config.path)
    tensors = read_tensors(path)
    scheme = detect(config, tensors)
    checked: dict[str, Source] = {}
    for role, source in sources(spec, family.names):
        for part in scheme.codec(source.tensor).parts(source):
            _check(part, tensors, path)
        checked[role] = source
    return Metadata(
        path=path,
        spec=spec,
        scheme=scheme,
        sources=checked,
        tensors=tensors,
        tokenizer=read_tokenizer(path, required=tokenizer_required),
        generation=read_generation(path, config),
    )


def _check(part: Part, tensors: Mapping[str, TensorEntry], folder: Path) -> None:
    entry = tensors.get(part.tensor)
    if entry is None:
        if part.optional:
            return
        raise SpecError(
            f"{folder} lacks tensor {part.tensor!r}",
            hint="config.json asks for it; are the two of one model?",
        )
    if entry.shape != part.shape and not (part.shape == () and entry.shape == (1,)):
        raise SpecError(
            f"tensor {part.tensor!r} in {entry.file} has shape {list(entry.shape)},"
            f" and config.json makes it {list(part.shape)}",
            hint="the two are not of one model",
        )
    if entry.dtype not in part.dtypes:
        raise SpecError(
            f"tensor {part.tensor!r} in {entry.file} is {entry.dtype}",
            hint=f"supported here: {', '.join(sorted(part.dtypes))}",
        )
