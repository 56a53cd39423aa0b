"""Worlds, one for each number of ranks, kept for a module."""

import pytest
from comm.world import World

SEGMENT_BYTES = 1 << 20


@pytest.fixture(scope="module")
def worlds():
    made = {}

    def get(num_ranks):
        if num_ranks not in made:
            made[num_ranks] = World(num_ranks, SEGMENT_BYTES)
            made[num_ranks].connect()
        return made[num_ranks]

    yield get
    for world in made.values():
        world.__exit__()
