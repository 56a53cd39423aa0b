"""The journal tells a reader exactly what the ranks' caches have."""

import pytest
from world import BLOCK, World, small

from rackscale.core import column
from rackscale.engine import build
from rackscale.policy import ROOT, BlockStored, PrefixJournal, block_hashes


class Reader:
    """Who knows of caches only what the journal says."""

    def __init__(self, world):
        self.world, self.journal = world, PrefixJournal()
        world.engine = build(world.deployment, self.journal)
        self.known = {}

    def read(self):
        for change in self.journal.take():
            if isinstance(change, BlockStored):
                assert change.parent == ROOT or change.parent in self.known
                assert block_hashes(column(change.tokens), BLOCK, change.parent) == [change.name]
                assert change.name not in self.known
                self.known[change.name] = change.tokens
            else:
                del self.known[change.name]
        ranks = [rank for group in self.world.engine._groups for rank in group.ranks]
        names = {name for rank in ranks for name in rank.blocks.index._block_of}
        assert set(self.known) <= names
        return names


POOLS = ({"role": "prefill"}, {"role": "decode", "num_ranks": 2})


@pytest.mark.parametrize("sizes", [{}, {"num_ranks": 2}, {"num_blocks": 12}, {"pools": POOLS}])
def test_all_that_is_computed_is_told_and_all_that_is_forgotten(sizes):
    world = World(small(**sizes))
    reader = Reader(world)
    for number in range(6):
        world.arrive(f"r{number}", prompt=[number // 2] * 10, max_tokens=9)
        world.step()
        reader.read()
    world.run()
    names = reader.read()
    assert names
    assert set(reader.known) == names


def test_of_a_lost_group_nothing_is_left():
    world = World(small())
    reader = Reader(world)
    world.arrive("a", prompt=range(10), max_tokens=1)
    world.run()
    reader.read()
    assert len(reader.known) == 2
    world.lose(0)
    reader.read()
    assert reader.known == {}
