"""All-reduce, all-gather, reduce-scatter, and KV transfers."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rackscale.cost.collectives import Links, all_gather, all_reduce, kv_transfer, reduce_scatter

MIB = 2.0**20
BOX = Links(generation=0, domain=8.0, fabric_bytes_per_s=450e9, network_bytes_per_s=50e9)
OPERATIONS = (all_reduce, all_gather, reduce_scatter)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_one_rank_has_nobody_to_tell(operation):
    found = operation(1e9, 1.0, BOX)
    assert found.seconds == 0
    assert found.bytes_link == 0


@given(st.sampled_from(OPERATIONS), st.integers(2, 576), st.floats(1, 1e10), st.floats(1, 10))
def test_bytes_ranks_and_domains_take_time(operation, ranks, size, factor):
    def seconds(size=size, ranks=float(ranks), domain=8.0):
        links = Links(generation=-1, domain=domain, fabric_bytes_per_s=450e9, network_bytes_per_s=50e9)
        return operation(size, ranks, links).seconds

    assert seconds(size=size * factor) >= seconds()
    assert seconds(domain=8.0) >= seconds(domain=576.0)
    assert seconds(ranks=2.0 * ranks, domain=576.0) >= seconds(domain=576.0) * (1 - 1e-12)


def test_measured_by_nccl():
    """H200 x 8, 512 MiB: bus bandwidths of 337 and 460 GB/s, where an all-reduce moves the bytes twice."""
    size, share = 512 * MIB, 7 / 8
    assert size * share / all_gather(size, 8.0, BOX).seconds == pytest.approx(337e9, rel=0.02)
    assert 2 * size * share / all_reduce(size, 8.0, BOX).seconds == pytest.approx(460e9, rel=0.02)
    assert 7e-6 <= all_gather(1.0, 8.0, BOX).seconds <= 16e-6
    assert reduce_scatter(size, 8.0, BOX).seconds == all_gather(size, 8.0, BOX).seconds


def test_an_unknown_generation_lies_between():
    generations = np.array([0, 1, -1])
    links = Links(generation=generations, domain=8.0, fabric_bytes_per_s=450e9, network_bytes_per_s=50e9)
    hopper, blackwell, other = all_gather(MIB, 8.0, links).seconds
    assert hopper < other < blackwell


RACK = Links(generation=1, domain=72.0, fabric_bytes_per_s=900e9, network_bytes_per_s=50e9)


def test_scattered_blocks_are_slower_over_the_fabric():
    """4.9 GB in a hundred thousand pieces: 57 % of the time goes into posting them (vllm#55434)."""
    pieces = (91_000 * 120_000) ** 0.5
    fabric = kv_transfer(4.9e9, pieces, RACK, inside_domain=True).seconds
    network = kv_transfer(4.9e9, pieces, RACK, inside_domain=False).seconds
    assert fabric > network
    whole = kv_transfer(4.9e9, 1.0, RACK, inside_domain=True).seconds
    assert whole < network / 10
    moving = 4.9e9 / (50e9 * 0.92)
    assert 1 - moving / fabric == pytest.approx(0.57, abs=0.01)


@given(st.floats(0, 1e11), st.floats(0, 1e6), st.floats(1, 5))
def test_more_bytes_and_pieces_take_longer(size, pieces, factor):
    for inside in (True, False):
        base = kv_transfer(size, pieces, RACK, inside_domain=inside)
        assert kv_transfer(size * factor, pieces, RACK, inside_domain=inside).seconds >= base.seconds
        assert kv_transfer(size, pieces * factor, RACK, inside_domain=inside).seconds >= base.seconds
        assert base.bytes_link == size


def test_nothing_to_hand_over():
    found = kv_transfer(np.array([0.0, 1.0]), 1.0, RACK, inside_domain=np.array([True, False]))
    assert found.seconds[0] == 0
    assert found.seconds[1] > 0
