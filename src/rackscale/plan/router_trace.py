"""What a trained router was seen to do: how uneven its experts are."""

import csv
import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rackscale.core import SpecError
from rackscale.cost.expert_load import MAX_SKEW, chances
from rackscale.specs import ModelSpec

SKEWS = np.linspace(0.0, MAX_SKEW, 151)
HINT = "give a line for each layer with a number of tokens for each expert, as CSV or a JSON list of lists"


def skew_of(path: Path, spec: ModelSpec) -> float:
    """The Zipf exponent whose loads deviate from their mean as those of the file do, in the mean of layers.

    Raises SpecError where the file cannot be read, or is not of the model.
    """
    if spec.moe is None:
        raise SpecError(f"{path}: the model has no experts", hint="leave --router-trace out")
    router = spec.moe.router
    loads = _read(path)
    if loads.shape[1] != router.num_experts:
        raise SpecError(f"{path} has {loads.shape[1]} experts, and the model {router.num_experts}", hint=HINT)
    seen = float((loads.std(1) / loads.mean(1)).mean())
    known = [chances(router.num_experts, router.top_k, skew) for skew in SKEWS]
    return float(np.interp(seen, [load.std() / load.mean() for load in known], SKEWS))


def _read(path: Path) -> NDArray[np.float64]:
    """[layers, experts]."""
    try:
        text = path.read_text(encoding="utf-8")
        rows = json.loads(text) if path.suffix == ".json" else list(csv.reader(text.splitlines()))
        loads = np.array([[float(number) for number in row] for row in rows], dtype=np.float64)
    except OSError as error:
        raise SpecError(f"{path} cannot be read ({error.strerror})", hint="give another file") from None
    except (ValueError, TypeError, csv.Error):
        raise SpecError(f"{path} is no table of numbers", hint=HINT) from None
    if loads.ndim != 2 or not loads.size or not np.isfinite(loads).all():
        raise SpecError(f"{path} is no table of numbers", hint=HINT)
    if (loads < 0).any() or (loads.sum(1) == 0).any():
        raise SpecError(f"{path} has layers without tokens, or fewer than none", hint=HINT)
    return loads
