"""KV over pairs of gloo: whole, in its place, by layer; and nothing is left of what is given up."""

import socket
import threading
import time

import pytest
import torch
from two_ends import (
    LENGTH,
    LIMIT_S,
    NUM_LAYERS,
    SOURCE,
    Target,
    move,
    push,
    source_cache,
    transfer,
)

from rackscale.core import RankId
from rackscale.runtime.messages import Door
from rackscale.runtime.transfer.split import KvSplit
from rackscale.specs import GqaSpec, share_heads

pytestmark = pytest.mark.timeout(60)


@pytest.fixture(autouse=True)
def same_numbers():
    torch.manual_seed(1)


def test_blocks_of_different_sizes():
    cache, target, sender = source_cache(), Target(), transfer()
    moved = move(sender, [push()], cache, [target.door()])
    assert moved.lost == ()
    assert moved.num_bytes == LENGTH * sum(part[0].nbytes for layer in cache.layers for part in layer)
    target.check(cache, range(LENGTH))


def test_step_after_step_over_one_pair():
    cache, target, sender = source_cache(), Target(), transfer()
    for step, (start, end) in enumerate([(0, 7), (7, 8), (8, LENGTH)], start=1):
        move(sender, [push(start=start, end=end)], cache, [target.door()], step)
        target.check(cache, range(end))
    assert len(sender._pairs) == 1


def test_layers_are_there_while_later_ones_compute():
    cache, target, sender = source_cache(), Target(), transfer()
    seen = []

    def compute(layer):
        deadline = time.monotonic() + LIMIT_S
        while layer and not target.layers[layer - 1][1].any() and time.monotonic() < deadline:
            time.sleep(0.001)
        seen.append([bool(part.any()) for _, part in target.layers])

    move(sender, [push()], cache, [target.door()], before_layer=compute)
    assert seen == [[number < layer for number in range(NUM_LAYERS)] for layer in range(NUM_LAYERS)]


def test_two_targets_and_two_requests():
    cache, sender, targets = source_cache(), transfer(), [Target(), Target()]
    pushes = [push("a", end=9), push("b", start=9, rank=1), push("c", start=9, end=10)]
    moved = move(sender, pushes, cache, [target.door(rank) for rank, target in enumerate(targets)])
    assert moved.lost == ()
    targets[0].check(cache, range(10))
    targets[1].check(cache, range(9, LENGTH))


def test_two_members_to_four_that_have_half_the_heads():
    attention = GqaSpec(num_heads=8, num_kv_heads=8, head_dim=8)
    cache, targets = source_cache(), [Target(heads=2), Target(heads=2)]
    split = KvSplit(attention=attention, own=share_heads(attention, 2, 1), tps=[2, 4])
    doors = [target.door(rank) for rank, target in enumerate(targets, start=2)]
    moved = move(transfer(split=split), [push()], cache, doors)
    assert moved.lost == ()
    targets[0].check(cache, range(LENGTH), slice(0, 2))
    targets[1].check(cache, range(LENGTH), slice(2, 4))


@pytest.mark.parametrize("doors", [[], [Door(group=1, rank=RankId(0), address="127.0.0.1:1")]])
def test_nobody_is_there(doors):
    started = time.monotonic()
    moved = move(transfer(), [push("a"), push("b")], source_cache(), doors)
    assert sorted(moved.lost) == ["a", "b"]
    assert time.monotonic() - started < LIMIT_S, "a refused connection needs no limit"


def test_somebody_is_there_who_does_not_answer():
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        door = Door(group=1, rank=RankId(0), address=f"127.0.0.1:{deaf.getsockname()[1]}")
        started = time.monotonic()
        moved = move(transfer(limit_s=0.5), [push()], source_cache(), [door])
    assert moved.lost == ("a",)
    assert time.monotonic() - started < 5


def test_a_pair_that_broke_between_steps_is_made_again():
    cache, target, sender = source_cache(), Target(), transfer()
    move(sender, [push(end=7)], cache, [target.door()])
    (pair,) = sender._pairs.values()
    pair.abort()
    moved = move(sender, [push(start=7)], cache, [target.door()], step=2)
    assert moved.lost == ()
    target.check(cache, range(LENGTH))


def test_what_is_lost_is_told_apart_from_what_arrived():
    cache, target, sender = source_cache(), Target(), transfer()
    gone = Door(group=1, rank=RankId(1), address="127.0.0.1:1")
    moved = move(sender, [push("a"), push("b", rank=1)], cache, [target.door(), gone])
    assert moved.lost == ("b",)
    target.check(cache, range(LENGTH))


@pytest.mark.parametrize(("incarnation", "step", "arrives"), [(1, 4, False), (1, 5, False), (2, 5, True)])
def test_a_fence(incarnation, step, arrives):
    cache, target, sender = source_cache(), Target(), transfer(incarnation=incarnation, limit_s=1.0)
    target.inbox.fence(SOURCE, 1, 5)
    target.inbox.fence(SOURCE, 1, 3)
    moved = move(sender, [push()], cache, [target.door()], step)
    assert moved.lost == (() if arrives else ("a",))
    target.check(cache, range(LENGTH) if arrives else [])


def test_a_fence_between_two_layers():
    cache, target, sender = source_cache(), Target(), transfer(limit_s=1.0)
    after_fence = threading.Event()

    def compute(layer):
        if layer == 1:
            deadline = time.monotonic() + LIMIT_S
            while not target.layers[0][1].any() and time.monotonic() < deadline:
                time.sleep(0.001)
            target.inbox.fence(SOURCE, 1, 1)
            after_fence.set()

    moved = move(sender, [push()], cache, [target.door()], before_layer=compute)
    assert after_fence.is_set()
    assert moved.lost == ("a",)
    assert not any(part.any() for layer in target.layers[1:] for part in layer)
    moved = move(sender, [push()], cache, [target.door()], step=2)
    assert moved.lost == ()
    target.check(cache, range(LENGTH))


def test_a_step_that_fails_is_not_waited_for():
    sender, target = transfer(), Target()
    sender.know(1, [target.door()])
    with pytest.raises(ZeroDivisionError), sender.begin([push()], source_cache()):
        _ = 1 / 0
