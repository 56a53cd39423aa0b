"""Changes of caches reach Dynamo's publisher in their order, and in few messages."""

from rackscale.core import column
from rackscale.policy import ROOT, BlockRemoved, BlockStored, block_hashes
from rackscale.serve.kv_events import KvEvents

A, B, C = block_hashes(column(range(6)), 2)


class Publisher:
    def __init__(self):
        self.said = []

    def publish_stored(self, *, token_ids, num_block_tokens, block_hashes, parent_hash):
        self.said.append(("stored", token_ids, num_block_tokens, block_hashes, parent_hash))

    def publish_removed(self, *, block_hashes):
        self.said.append(("removed", sorted(block_hashes)))


def number(name):
    return int.from_bytes(name[:8], "little", signed=True)


def stored(name, parent, *tokens):
    return BlockStored(name=name, parent=parent, tokens=tokens)


def told(*batches):
    events = KvEvents()
    events.publisher = Publisher()
    for batch in batches:
        events.tell(batch)
    return events, events.publisher.said


def test_a_chain_is_one_message():
    _, said = told([stored(A, ROOT, 0, 1), stored(B, A, 2, 3)], [stored(C, B, 4, 5)])
    assert said == [
        ("stored", [0, 1, 2, 3], [2, 2], [number(A), number(B)], None),
        ("stored", [4, 5], [2], [number(C)], number(B)),
    ]


def test_order_is_kept():
    gone = [BlockRemoved(name=B), BlockRemoved(name=A)]
    _, said = told([stored(A, ROOT, 0, 1), *gone, stored(A, ROOT, 0, 1), stored(C, B, 4, 5)])
    assert [what for what, *_ in said] == ["stored", "removed", "stored", "stored"]
    assert said[1] == ("removed", sorted([number(A), number(B)]))


def test_the_caches_of_an_engine_that_died_are_empty():
    events, said = told([stored(A, ROOT, 0, 1), stored(B, A, 2, 3), BlockRemoved(name=B)])
    events.tell_all_gone()
    events.tell_all_gone()
    assert said[2:] == [("removed", [number(A)])]


def test_nobody_is_told_before_there_is_a_publisher():
    events = KvEvents()
    events.tell([stored(A, ROOT, 0, 1), BlockRemoved(name=A)])
    events.tell_all_gone()
