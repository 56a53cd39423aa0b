"""Which safetensors files make up a folder, and where each tensor is."""

import json
from pathlib import Path

from rackscale.checkpoint.safetensors_file import TensorEntry, read_header
from rackscale.core import SpecError

INDEX = "model.safetensors.index.json"
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")


def read_tensors(folder: Path) -> dict[str, TensorEntry]:
    """All tensors of a folder by name, from headers alone.

    Raises SpecError naming the shard that is missing or broken, or the tensor that the index
    promises and no shard has.
    """
    index = folder / INDEX
    if not index.exists():
        return _read_files(folder, sorted(folder.glob("*.safetensors")))
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(v, str) for v in weight_map.values()):
        raise SpecError(f"{index} has no weight_map", hint="it must say which file has which tensor")
    return _read_shards(folder, weight_map)


def _read_shards(folder: Path, weight_map: dict[str, str]) -> dict[str, TensorEntry]:
    """What the index lists, each from the shard that the index names."""
    shards = sorted(set(weight_map.values()))
    present = {file.name for file in folder.iterdir()}
    missing = [shard for shard in shards if shard not in present]
    if missing:
        raise SpecError(
            f"{folder} lacks {len(missing)} of {len(shards)} shards: {', '.join(missing[:3])}",
            hint="download what is missing",
        )
    headers = {shard: read_header(folder / shard) for shard in shards}
    for name, shard in weight_map.items():
        if name not in headers[shard]:
            raise SpecError(
                f"tensor {name!r} is not in {folder / shard}, where {INDEX} says it is",
                hint="the index and the shards are of different versions",
            )
    return {name: headers[shard][name] for name, shard in weight_map.items()}


def _read_files(folder: Path, files: list[Path]) -> dict[str, TensorEntry]:
    if not files:
        pickled = any(any(folder.glob(pattern)) for pattern in PICKLES)
        raise SpecError(
            f"{folder} has no .safetensors file",
            hint="its weights are pickles, which are never loaded; convert them to safetensors"
            if pickled
            else "give a Hugging Face folder with weights",
        )
    tensors: dict[str, TensorEntry] = {}
    for file in files:
        for name, entry in read_header(file).items():
            if name in tensors:
                raise SpecError(
                    f"tensor {name!r} is in {tensors[name].file} and in {file}",
                    hint=f"keep one of them, or add {INDEX}, which says which is meant",
                )
            tensors[name] = entry
    return tensors


def read_json(path: Path) -> dict[str, object]:
    """A JSON object out of a file. Raises SpecError naming the file."""
    try:
        value = json.loads(path.read_bytes())
    except OSError as error:
        raise SpecError(f"{path} cannot be read ({error.strerror})", hint="is the folder whole?") from None
    except (ValueError, RecursionError):
        raise SpecError(f"{path} is no JSON", hint="it is damaged; download it again") from None
    if not isinstance(value, dict):
        raise SpecError(f"{path} is no JSON object", hint="it is damaged; download it again")
    return value
