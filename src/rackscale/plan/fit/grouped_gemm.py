"""Expert kernels measured alone: what tells apart formats that no served row has, INT4 above all.

`data/grouped_gemm.csv`: microseconds for a layer's experts of Kimi K2, all three matrices, by tokens in the
whole group.
"""

import csv
from importlib import resources

import numpy as np
from numpy.typing import NDArray

from rackscale.cost import Chips, Parameters, Precision, Shape, Work
from rackscale.cost.layouts import layouts
from rackscale.cost.step import routed_experts
from rackscale.specs.catalog import load_model, load_system

Array = NDArray[np.float64]

MODEL = "kimi-k2-instruct"
US_PER_S = 1e6


class GroupedGemm:
    """The table's rows, and what the model says of them."""

    def __init__(self) -> None:
        text = (resources.files("rackscale.plan") / "data" / "grouped_gemm.csv").read_text(encoding="utf-8")
        rows = list(csv.DictReader(text.splitlines()))
        self.tokens = np.array([float(row["tokens"]) for row in rows])
        self.log_seconds = np.log([float(row["microseconds"]) / US_PER_S for row in rows])
        ranks = np.array([float(row["ranks"]) for row in rows])
        spread = np.array([row["split"] == "ep" for row in rows])
        formats = [row["format"] for row in rows]
        shape = Shape.of(load_model(MODEL).spec)
        self.work = Work(
            shape=shape,
            chips=Chips.of([load_system(row["system"]) for row in rows]),
            layouts=layouts(
                ranks=ranks,
                tp=np.where(spread, 1.0, ranks),
                ep=np.where(spread, ranks, 1.0),
                slots=float(shape.experts),
            ),
            precision=Precision.of(formats, formats, formats, np.ones(len(rows))),
            recipe=np.full(len(rows), -1),
            engine=np.full(len(rows), -1),
            balance=np.zeros(len(rows)),
        )

    def log_predicted(self, parameters: Parameters) -> Array:
        """[K, R]: logarithms of seconds, with the launches of a kernel that runs alone."""
        alone = routed_experts(self.work, self.tokens, parameters).seconds
        return np.log(alone + parameters["grouped_gemm_launch"])
