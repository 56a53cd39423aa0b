"""Pure decisions: which blocks, which prefix, which work enters the next step, which rank."""

from rackscale.policy.expert_placement import (
    ExpertLoads,
    Placement,
    choose_redundant_experts,
    even_placement,
    moves,
    place_experts,
    rebalance_pays,
)
from rackscale.policy.kv_blocks import KvBlocks
from rackscale.policy.pools import helps_out, local_limit, prefill_at_decode
from rackscale.policy.prefix_index import ROOT, BlockHash, PrefixIndex, block_hashes
from rackscale.policy.prefix_journal import BlockChange, BlockRemoved, BlockStored, PrefixJournal
from rackscale.policy.router import Candidate, route
from rackscale.policy.scheduler import fill_step, importance
from rackscale.policy.siblings import Siblings
from rackscale.policy.step_costs import StepCosts
from rackscale.policy.waiting import Waiting

__all__ = [
    "ROOT",
    "BlockChange",
    "BlockHash",
    "BlockRemoved",
    "BlockStored",
    "Candidate",
    "ExpertLoads",
    "KvBlocks",
    "Placement",
    "PrefixIndex",
    "PrefixJournal",
    "Siblings",
    "StepCosts",
    "Waiting",
    "block_hashes",
    "choose_redundant_experts",
    "even_placement",
    "fill_step",
    "helps_out",
    "importance",
    "local_limit",
    "moves",
    "place_experts",
    "prefill_at_decode",
    "rebalance_pays",
    "route",
]
