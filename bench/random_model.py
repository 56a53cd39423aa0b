"""Checkpoints of a given shape with random weights, for benches: no tokenizer, and nothing that they say
means anything. A tensor is a slice of a pool of random numbers, so that they are written at the disk's speed
and no memory is needed; NVFP4 ones come directly, codes and scales are drawn.

    python bench/random_model.py FOLDER [--shape olmoe|qwen3|kimi] [--layers N] [--format bf16|nvfp4]
"""

import argparse
import fnmatch
import json
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import torch
from shapes import Config, kimi_k2, olmoe, qwen3_30b_a3b

from rackscale.checkpoint.families import family_of
from rackscale.checkpoint.fields import Fields
from rackscale.checkpoint.roles import Source, sources

VOCAB = 1024  # of `olmoe_shaped`
GOOD_STD = 0.02
POOL = 2**25 + 4096  # elements; long, so that two tensors seldom share a row
SHARD_BYTES = 2**31
BLOCK = 16
LOW_SCALE, HIGH_SCALE = 0x6C, 0x7A  # bytes of E4M3, 96 to 320: what ModelOpt's block scales mostly are
CODE_RMS, SCALE_RMS = 2.93, 184.0  # of even E2M1 codes and of such scales
ACTIVATION_SCALE = 5.4 / 2688  # of activations after a norm
DTYPE_BYTES = {"F32": 4, "BF16": 2, "U8": 1, "F8_E4M3": 1}

# What NVIDIA's exports leave in bf16: of Qwen3 lm_head and routers, of Kimi-K2.6 all but routed experts.
ALL_LINEAR = ("model.embed_tokens", "*.mlp.gate")
LIKE_QWEN3 = ("lm_head", *ALL_LINEAR)
LIKE_KIMI = (*LIKE_QWEN3, "*.self_attn*", "model.layers.0*", "*.mlp.shared_experts*")


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """A tensor of a file. pool: what its numbers are."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    pool: str

    @property
    def num_bytes(self) -> int:
        return torch.Size(self.shape).numel() * DTYPE_BYTES[self.dtype]


def random_model(folder: Path, config: Config, *, bf16: Sequence[str] = ("*",), seed: int = 0) -> Path:
    """Write a checkpoint. bf16: globs of the modules that stay so, all others are NVFP4 in ModelOpt's names.
    The same arguments make the same files. The folder is complete where its config.json is there."""
    folder.mkdir(parents=True, exist_ok=True)
    family = family_of(Fields(config, folder / "config.json"))
    spec = family.read(Fields(config, folder / "config.json"))
    entries: list[Entry] = []
    for role, source in sources(spec, family.names):
        entries += _entries(role, source, bf16)
    pools, offsets = _pools(seed), random.Random(seed)
    shards = list(_shards(entries))
    where = {}
    for number, shard in enumerate(shards, start=1):
        single = len(shards) == 1
        name = "model.safetensors" if single else f"model-{number:05}-of-{len(shards):05}.safetensors"
        with (folder / name).open("wb") as file:
            _write(file, shard, pools, offsets)
        where |= dict.fromkeys((entry.name for entry in shard), name)
    if len(shards) > 1:
        index = {"metadata": {"total_size": sum(e.num_bytes for e in entries)}, "weight_map": where}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    if any(entry.dtype == "U8" for entry in entries):
        config = config | {"quantization_config": _quantization(bf16)}
        (folder / "hf_quant_config.json").write_text(json.dumps(_side_file(bf16), indent=1))
    (folder / "config.json").write_text(json.dumps(config, indent=1))
    return folder


def _entries(role: str, source: Source, bf16: Sequence[str]) -> Iterator[Entry]:
    name, shape = source.tensor, source.shape
    module = name.removesuffix(".weight")
    if len(shape) == 1:
        correction = role.endswith("router_correction")
        yield (
            Entry(name=name, dtype="F32", shape=shape, pool="zeros")
            if correction
            else Entry(name=name, dtype="BF16", shape=shape, pool="ones")
        )
    elif any(fnmatch.fnmatchcase(module, glob) for glob in bf16):
        yield Entry(name=name, dtype="BF16", shape=shape, pool="unit" if role == "embed" else "good")
    else:
        rows, depth = shape
        yield Entry(name=name, dtype="U8", shape=(rows, depth // 2), pool="codes")
        yield Entry(name=f"{name}_scale", dtype="F8_E4M3", shape=(rows, depth // BLOCK), pool="scales")
        yield Entry(name=f"{name}_scale_2", dtype="F32", shape=(), pool="tensor_scale")
        yield Entry(name=f"{module}.input_scale", dtype="F32", shape=(), pool="input_scale")


def _pools(seed: int) -> dict[str, memoryview]:
    generator = torch.Generator().manual_seed(seed)
    normal = torch.empty(POOL, dtype=torch.float32).normal_(generator=generator)
    codes = torch.empty(POOL // 8, dtype=torch.int64).random_(generator=generator).view(torch.uint8)
    scales = torch.randint(LOW_SCALE, HIGH_SCALE, (POOL,), dtype=torch.uint8, generator=generator)
    pools = {
        "unit": normal.bfloat16(),
        "good": (normal * GOOD_STD).bfloat16(),
        "ones": torch.ones(2**15, dtype=torch.bfloat16),
        "zeros": torch.zeros(2**15),
        "codes": codes,
        "scales": scales,
        "tensor_scale": torch.tensor([GOOD_STD / (CODE_RMS * SCALE_RMS)]),
        "input_scale": torch.tensor([ACTIVATION_SCALE]),
    }
    return {name: memoryview(pool.view(torch.uint8).numpy()) for name, pool in pools.items()}


def _shards(entries: Iterable[Entry]) -> Iterator[list[Entry]]:
    """Of about SHARD_BYTES; in each the widest dtypes first, so that all are aligned."""
    shard: list[Entry] = []
    size = 0
    for entry in entries:
        if shard and size + entry.num_bytes > SHARD_BYTES:
            yield sorted(shard, key=lambda e: -DTYPE_BYTES[e.dtype])
            shard, size = [], 0
        shard.append(entry)
        size += entry.num_bytes
    yield sorted(shard, key=lambda e: -DTYPE_BYTES[e.dtype])


def _write(
    file: BinaryIO, shard: Sequence[Entry], pools: dict[str, memoryview], offsets: random.Random
) -> None:
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    start = 0
    for entry in shard:
        end = start + entry.num_bytes
        header[entry.name] = {
            "dtype": entry.dtype,
            "shape": list(entry.shape),
            "data_offsets": [start, end],
        }
        start = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    file.write(len(text).to_bytes(8, "little") + text)
    for entry in shard:
        pool, left = pools[entry.pool], entry.num_bytes
        at = 4 * offsets.randrange(max(1, len(pool) // 4 - left // 4))
        while left:
            part = pool[at : at + left]
            file.write(part)
            left, at = left - len(part), 0


def _quantization(bf16: Sequence[str]) -> dict[str, object]:
    numbers = {"dynamic": False, "num_bits": 4, "type": "float", "group_size": BLOCK}
    group = {"input_activations": numbers, "weights": numbers, "targets": ["Linear"]}
    return {
        "config_groups": {"group_0": group},
        "ignore": list(bf16),
        "quant_algo": "NVFP4",
        "producer": {"name": "modelopt", "version": "0.47.0"},
        "quant_method": "modelopt",
    }


def _side_file(bf16: Sequence[str]) -> dict[str, object]:
    quantization = {
        "quant_algo": "NVFP4",
        "kv_cache_quant_algo": None,
        "group_size": BLOCK,
        "exclude_modules": list(bf16),
    }
    return {"producer": {"name": "modelopt", "version": "0.47.0"}, "quantization": quantization}


def olmoe_shaped(folder: Path, num_layers: int) -> Path:
    """Layers of OLMoE-1B-7B's shape in bf16 under a small vocabulary."""
    return random_model(folder, olmoe(num_layers=num_layers, vocab=VOCAB))


SHAPES: dict[str, tuple[Callable[..., Config], tuple[str, ...]]] = {
    "olmoe": (olmoe, ALL_LINEAR),
    "qwen3": (qwen3_30b_a3b, LIKE_QWEN3),
    "kimi": (kimi_k2, LIKE_KIMI),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--shape", choices=SHAPES, default="olmoe")
    parser.add_argument("--layers", type=int, help="the shape's own where it is not given")
    parser.add_argument("--format", choices=("bf16", "nvfp4"), default="nvfp4")
    options = parser.parse_args()
    shape, bf16 = SHAPES[options.shape]
    config = shape() if options.layers is None else shape(num_layers=options.layers)
    random_model(options.folder, config, bf16=bf16 if options.format == "nvfp4" else ("*",))


if __name__ == "__main__":
    main()
