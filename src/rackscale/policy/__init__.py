"""Pure decisions: which blocks, which prefix, which work enters the next step, which rank."""

from rackscale.policy.kv_blocks import KvBlocks
from rackscale.policy.prefix_index import ROOT, BlockHash, PrefixIndex, block_hashes
from rackscale.policy.router import Candidate, route
from rackscale.policy.scheduler import fill_step, importance
from rackscale.policy.siblings import Siblings
from rackscale.policy.waiting import Waiting

__all__ = [
    "ROOT",
    "BlockHash",
    "Candidate",
    "KvBlocks",
    "PrefixIndex",
    "Siblings",
    "Waiting",
    "block_hashes",
    "fill_step",
    "importance",
    "route",
]
