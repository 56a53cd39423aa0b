"""Ranks that die, memory that is overwritten, and tokens that are too many."""

import ctypes
import signal
import time

import pytest
import torch
from comm.world import World, rounds_until_lost
from golden_ranks import NATIVE_IS_BUILT

from rackscale.core import CapacityError, RankLostError, column
from rackscale.runtime.comm.gloo import GlooAllToAll
from rackscale.runtime.comm.heap import Heap
from rackscale.runtime.comm.shared_memory import SharedAllToAll, domain_bytes
from rackscale.runtime.comm.wire import Wire
from rackscale.runtime.comm.wire_torch import lines, row_bytes
from rackscale.runtime.network import Network

pytestmark = pytest.mark.skipif(not NATIVE_IS_BUILT, reason="no compiler built it")

SIZES = {"hidden": 32, "top_k": 1, "wire": Wire.FP32}
CAPACITY = 4
HEAD_BYTES = 4096
LIMIT_S = 0.5
SLACK_S = 1.0  # of a machine that has other things to do


@pytest.mark.parametrize(
    ("kind", "hosts"), [("shared", None), ("gloo", None), ("hierarchical", [[0, 1], [2]])], ids=str
)
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP], ids=["dies", "hangs"])
def test_a_rank_is_lost(how, kind, hosts):
    with World(3, 1 << 20) as world:
        world.connect(LIMIT_S * 4)
        for rank in range(3):
            world._tell(rank, rounds_until_lost, kind, hosts, SIZES, LIMIT_S)
        time.sleep(0.1)
        world.send_signal(1, how)
        for rank in (0, 2):
            took_s, what = world._answer(rank)
            assert took_s < 3 * LIMIT_S + SLACK_S
            assert f"rank {rank}" in what


def two_ends():
    """Both ranks of a domain, in this process."""
    heap = Heap(2, domain_bytes(2, SIZES["hidden"], SIZES["top_k"], CAPACITY))
    ends = [SharedAllToAll(r, heap.addresses, **SIZES, capacity=CAPACITY, limit_s=LIMIT_S) for r in range(2)]
    for end in ends:
        end.place(0, column([0, 1])[:, None], column([1, 1]))
    return heap, ends


def send(end, experts):
    count = len(experts)
    end.dispatch(0, torch.ones(count, SIZES["hidden"]), torch.ones(count, 1), column_2d(experts))


def column_2d(experts):
    return torch.tensor(experts, dtype=torch.int32).view(-1, 1)


BOX = lines(8) + CAPACITY * (row_bytes(Wire.FP32, SIZES["hidden"]) + lines(8))
ROWS = lines(8) + CAPACITY * row_bytes(Wire.FP32, SIZES["hidden"])


@pytest.mark.parametrize(
    ("offset", "value", "what"),
    [
        (0, CAPACITY + 1, "box of rank 1"),  # how many tokens
        (4, 7, "box of rank 1"),  # which round
        (ROWS, 2, "expert of rank 1"),
        (ROWS, -2, "expert of rank 1"),
    ],
)
def test_memory_is_overwritten(offset, value, what):
    heap, ends = two_ends()
    for end in ends:
        send(end, [0, 1, 0])
    ctypes.c_int32.from_address(heap.addresses[0] + HEAD_BYTES + BOX + offset).value = value
    with pytest.raises(RankLostError, match=f"shared memory is corrupt: .*{what}"):
        ends[0].receive()


def test_nobody_else_comes():
    _, ends = two_ends()
    send(ends[0], [1])
    start_s = time.monotonic()
    with pytest.raises(RankLostError, match="rank 0 waited in vain for other ranks to dispatch in round 1"):
        ends[0].receive()
    assert LIMIT_S <= time.monotonic() - start_s < LIMIT_S + SLACK_S


def test_too_many_tokens():
    _, ends = two_ends()
    with pytest.raises(CapacityError, match="5 tokens at once, and boxes in shared memory are for 4"):
        send(ends[0], [0] * (CAPACITY + 1))


def ends_of_one():
    """A group of one rank, in memory and on the network."""
    heap = Heap(1, domain_bytes(1, SIZES["hidden"], SIZES["top_k"], CAPACITY))
    yield SharedAllToAll(0, heap.addresses, **SIZES, capacity=CAPACITY)
    network = Network("127.0.0.1")
    group = network.group(network.store(network.address, 5.0), "one", 0, 1, 5.0)
    yield GlooAllToAll(group, **SIZES)


def test_experts_that_nobody_has():
    for end in ends_of_one():
        end.place(0, column([0, -1])[:, None], column([1, 0]))
        for expert in (1, 2):
            with pytest.raises(ValueError, match="has no copy"):
                send(end, [expert])
        with pytest.raises(ValueError, match="a rank that is not there"):
            end.place(0, column([1])[:, None], column([1]))
        with pytest.raises(ValueError, match="more copies than ranks are named"):
            end.place(0, column([0])[:, None], column([2]))


def test_choices_of_nobody_are_skipped():
    for end in ends_of_one():
        end.place(0, column([0])[:, None], column([1]))
        send(end, [-1, 0])
        received = end.receive()
        assert received.count == 1
        out = end.combine(received.hidden_NH * 3)
        assert out.tolist() == [[0.0] * SIZES["hidden"], [3.0] * SIZES["hidden"]]
