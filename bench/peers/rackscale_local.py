"""rackscale, in a process of its own."""

import importlib.metadata
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from peers.cache import Cache
from peers.models import olmoe_nvfp4
from peers.visit import Visit, Work, driven

DRIVER = Path(__file__).parent / "drive_rackscale.py"


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """As `LocalOptions`; profile: say where steps went."""

    activations: str = "auto"
    kernels: str = "auto"
    ranks: int = 1
    kv_gib: float = 0.5
    profile: bool = False


class Rackscale:
    """The packed path: NVFP4 weights, lm_head and attention too."""

    heavy = False

    def __init__(
        self, name: str, cache: Cache, num_layers: int, options: Options, model: Path | None = None
    ) -> None:
        self.name = name
        self.weights = "nvfp4" if model is None else model.name
        self._cache, self._num_layers, self._options, self._model = cache, num_layers, options, model

    @property
    def version(self) -> str:
        return importlib.metadata.version("rackscale")

    @property
    def files(self) -> Sequence[Path]:
        assert self._model is not None, "it was prepared"
        return sorted(self._model.glob("*.safetensors"))

    def prepare(self) -> None:
        if self._model is None:
            self._model = olmoe_nvfp4(self._cache, self._num_layers)

    def visit(self, work: Work) -> Visit:
        assert self._model is not None, "it was prepared"
        return driven((sys.executable, "-P", DRIVER, self._model), work, json.dumps(asdict(self._options)))
