"""The all-to-all of each layout, tabled over tokens: what a fit or a search asks for a thousand times."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Self

import numpy as np
from numpy.typing import NDArray

from rackscale.cost.chips import MATHS, Chips
from rackscale.cost.collectives import Exchange, Links, all_to_all
from rackscale.cost.formats import Precision
from rackscale.cost.layouts import Layouts
from rackscale.cost.shape import Shape

Array = NDArray[np.float64]

TOKENS = np.concatenate([[0.0], np.geomspace(0.25, 2.0**17, 39)])  # of a rank; straight lines in between
WIRES = dict(zip(MATHS, ("bf16", "fp8", "nvfp4"), strict=True))  # what experts' arithmetic is sent as


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class ExchangeTable:
    """[G, U] by `TOKENS` and kinds of exchanges: seconds and bytes of dispatch and combine, by the fastest
    protocol, as kernels of a graph that nothing else runs beside. kind: of each layout, [R]."""

    seconds: Array
    bytes_link: Array
    kind: NDArray[np.intp]

    @classmethod
    def of(cls, shape: Shape, chips: Chips, layouts: Layouts, precision: Precision) -> Self:
        """Of every layout, whether or not it exchanges."""
        columns = np.broadcast_arrays(
            layouts.ranks,
            precision.expert_math,
            chips.generation,
            chips.domain,
            chips.fabric_bytes_per_s,
            chips.network_bytes_per_s,
        )
        kinds, kind = np.unique(np.stack(columns), axis=1, return_inverse=True)
        ranks, maths, generation, domain, fabric, network = kinds
        links = Links(
            generation=generation.astype(np.intp),
            domain=domain,
            fabric_bytes_per_s=fabric,
            network_bytes_per_s=network,
        )
        seconds, moved = (np.zeros((len(TOKENS), len(ranks))) for _ in range(2))
        for number, math in enumerate(MATHS):
            exchange = Exchange(
                ranks=ranks,
                tokens_per_rank=TOKENS[:, None],
                hidden=float(shape.hidden),
                top_k=float(shape.top_k),
                dispatch=WIRES[math],
            )
            found = all_to_all(exchange, links, captured=True)
            seconds = np.where(maths == number, found.seconds, seconds)
            moved = np.where(maths == number, found.bytes_link, moved)
        return cls(seconds=seconds, bytes_link=moved, kind=kind.ravel())

    def at(self, tokens: Array) -> tuple[Array, Array]:
        """Seconds and bytes [K, R] for tokens [K, R] of a rank."""
        after = np.clip(np.searchsorted(TOKENS, tokens, side="right"), 1, len(TOKENS) - 1)
        before = after - 1
        part = (tokens - TOKENS[before]) / (TOKENS[after] - TOKENS[before])
        low, high = self.seconds[before, self.kind], self.seconds[after, self.kind]
        few, many = self.bytes_link[before, self.kind], self.bytes_link[after, self.kind]
        return low + (high - low) * part, few + (many - few) * part


@lru_cache(maxsize=32)
def exchange_table(shape: Shape, chips: Chips, layouts: Layouts, precision: Precision) -> ExchangeTable:
    """The same, made once for the same objects."""
    return ExchangeTable.of(shape, chips, layouts, precision)
