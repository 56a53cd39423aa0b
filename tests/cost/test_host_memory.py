"""Caches out of the host's memory."""

import numpy as np
import pytest
from cases import GQA, model, work

from rackscale.cost.host_memory import cache_read


def test_a_rack_s_host_gives_a_prefix_back_at_its_link_s_rate():
    rack = work(systems=("gb200-nvl72",))
    read = cache_read(rack, np.array([10.0]), np.array([1000.0]))
    assert read.bytes_link == pytest.approx(10 * 1000 * 4 * 40)
    assert read.seconds == pytest.approx(read.bytes_link / 225e9)


def test_attentions_share_the_sequences_and_ranks_the_heads():
    spec = model(GQA)
    one, two, split = (work(spec, **layout) for layout in ({}, {"ranks": 2.0}, {"ranks": 2.0, "tp": 2.0}))
    arguments = (np.array([8.0]), np.array([100.0]))
    whole = cache_read(one, *arguments).seconds
    assert cache_read(two, *arguments).seconds == pytest.approx(whole / 2)
    assert cache_read(split, *arguments).seconds == pytest.approx(whole / 2)
