"""What ranks send each other: experts' all-to-all, reductions, and KV between pools.

`all_to_all` is a formula over ranks, domains and bytes; no measured point stands for another. Its parameters
are fitted to kernels that ran alone (`python -m rackscale.plan.fit.collectives`), and are kept in
`cost/fitted/collectives.toml`.
"""

from rackscale.cost.collectives.all_to_all import Phases, all_to_all, phases
from rackscale.cost.collectives.coefficients import Coefficients, fitted
from rackscale.cost.collectives.exchange import Exchange
from rackscale.cost.collectives.links import Links
from rackscale.cost.collectives.protocols import BEST, Protocol, protocol_of
from rackscale.cost.collectives.reduction import all_gather, all_reduce, reduce_scatter
from rackscale.cost.collectives.transfer import kv_transfer

__all__ = [
    "BEST",
    "Coefficients",
    "Exchange",
    "Links",
    "Phases",
    "Protocol",
    "all_gather",
    "all_reduce",
    "all_to_all",
    "fitted",
    "kv_transfer",
    "phases",
    "protocol_of",
    "reduce_scatter",
]
