"""The model that all engines run, made where it is not there yet."""

import shutil
from pathlib import Path

from random_model import ALL_LINEAR, random_model
from shapes import olmoe

from peers.cache import Cache


def olmoe_bf16(cache: Cache, num_layers: int) -> Path:
    """OLMoE's shape in bf16 (14 GB with its 16 layers)."""
    return _made(cache.path / f"olmoe-{num_layers}-bf16", num_layers, ("*",))


def olmoe_nvfp4(cache: Cache, num_layers: int) -> Path:
    """The same in NVFP4, lm_head and attention too (4 GB)."""
    return _made(cache.path / f"olmoe-{num_layers}-nvfp4", num_layers, ALL_LINEAR)


def _made(path: Path, num_layers: int, bf16: tuple[str, ...]) -> Path:
    if not path.exists():
        part = path.with_suffix(".part")
        shutil.rmtree(part, ignore_errors=True)
        random_model(part, olmoe(num_layers=num_layers), bf16=bf16)
        part.rename(path)
    return path
