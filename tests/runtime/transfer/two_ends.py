"""Both ends of a network transfer in one process, which waits in threads."""

import numpy as np
import torch

from rackscale.core import GroupId, KvPush, RankId, RequestId, column
from rackscale.runtime.kv_cache import KvCache
from rackscale.runtime.messages import Door
from rackscale.runtime.network import Network
from rackscale.runtime.transfer.gloo import GlooTransfer
from rackscale.runtime.transfer.inbox import Inbox
from rackscale.runtime.transfer.wire import Caller

LIMIT_S = 2.0
NUM_LAYERS, HEADS, DIM = 3, 4, 8
SOURCE, TARGET = GroupId(0), GroupId(1)
SOURCE_BLOCK, TARGET_BLOCK = 4, 8
LENGTH = 21


def layers(num_slots, *, heads=HEADS, filled):
    make = torch.randn if filled else torch.zeros
    return [tuple(make(num_slots, heads, DIM) for _ in range(2)) for _ in range(NUM_LAYERS)]


def source_cache():
    """Row 0 has LENGTH tokens in blocks that are out of order."""
    cache = KvCache(layers(64, filled=True), block_size=SOURCE_BLOCK, max_running=2, max_model_len=32)
    blocks = column([9, 3, 5, 0, 12, 7])
    cache.assign(np.zeros_like(blocks), np.arange(len(blocks), dtype=np.int32), blocks)
    return cache


def push(name="a", *, start=0, end=LENGTH, rank=0):
    """Of row 0, into blocks of another size."""
    return KvPush(
        request=RequestId(name),
        row=0,
        start=start,
        end=end,
        group=TARGET,
        rank=RankId(rank),
        blocks=column([4, 1, 6]),
        block_size=TARGET_BLOCK,
    )


def target_slots(positions):
    blocks = push().blocks
    return [int(blocks[at // TARGET_BLOCK]) * TARGET_BLOCK + at % TARGET_BLOCK for at in positions]


class Target:
    """A rank that takes KV."""

    def __init__(self, *, heads=HEADS):
        self.layers = layers(64, heads=heads, filled=False)
        self.network = Network("127.0.0.1")
        self.inbox = Inbox(self.network, self.layers, LIMIT_S)

    def door(self, rank=0):
        return Door(group=TARGET, rank=RankId(rank), address=self.network.address)

    def check(self, cache, positions, heads=slice(None)):
        """The positions are here, and nothing else is."""
        there, here = target_slots(positions), cache.slots_of(0, LENGTH)[list(positions)]
        for layer, mine in zip(cache.layers, self.layers, strict=True):
            for part, copy in zip(layer, mine, strict=True):
                assert torch.equal(copy[there], part[here.tolist()][:, heads])
                rest = torch.ones(len(copy), dtype=torch.bool)
                rest[there] = False
                assert not copy[rest].any()


def transfer(*, limit_s=LIMIT_S, incarnation=1, split=None):
    """Of a rank that pushes."""
    network = Network("127.0.0.1")
    caller = Caller(group=SOURCE, rank=RankId(0), incarnation=incarnation)
    inbox = Inbox(network, layers(1, filled=False), limit_s)
    return GlooTransfer(network, caller, inbox, limit_s, split)


def move(sender, pushes, cache, doors, step=1, before_layer=lambda _: None):
    """A whole step; gives its move."""
    sender.know(step, doors)
    with sender.begin(pushes, cache) as moved:
        for layer in range(NUM_LAYERS):
            before_layer(layer)
            moved.after_layer(layer)
    return moved
