"""What this worker's caches hold, told to routers through Dynamo."""

from collections.abc import Sequence
from typing import Any

from rackscale.policy import ROOT, BlockChange, BlockHash, BlockRemoved, BlockStored

HASH_BYTES = 8  # Dynamo's names of blocks are signed numbers of 64 bits


class KvEvents:
    """Tells a publisher, Dynamo's KvEventPublisher, once there is one. Changes go out in their order."""

    def __init__(self) -> None:
        self.publisher: Any = None
        self._told: set[BlockHash] = set()

    def tell(self, changes: Sequence[BlockChange]) -> None:
        """The caches have changed."""
        for run in _runs(changes):
            if isinstance(run[0], BlockStored):
                self._stored(run)
            else:
                self._removed([change.name for change in run])

    def tell_all_gone(self) -> None:
        """The caches are empty."""
        if self._told:
            self._removed(list(self._told))

    def _stored(self, chain: Sequence[Any]) -> None:
        self._told.update(block.name for block in chain)
        if self.publisher is not None:
            parent = chain[0].parent
            self.publisher.publish_stored(
                token_ids=[token for block in chain for token in block.tokens],
                num_block_tokens=[len(block.tokens) for block in chain],
                block_hashes=[_number(block.name) for block in chain],
                parent_hash=None if parent == ROOT else _number(parent),
            )

    def _removed(self, names: Sequence[BlockHash]) -> None:
        self._told.difference_update(names)
        if self.publisher is not None:
            self.publisher.publish_removed(block_hashes=[_number(name) for name in names])


def _runs(changes: Sequence[BlockChange]) -> list[list[BlockChange]]:
    """Changes that can be told in one message each: blocks that follow each other, or that are gone."""
    runs: list[list[BlockChange]] = []
    for change in changes:
        if runs and _follows(change, runs[-1][-1]):
            runs[-1].append(change)
        else:
            runs.append([change])
    return runs


def _follows(change: BlockChange, last: BlockChange) -> bool:
    if isinstance(change, BlockRemoved):
        return isinstance(last, BlockRemoved)
    return isinstance(last, BlockStored) and change.parent == last.name


def _number(name: BlockHash) -> int:
    return int.from_bytes(name[:HASH_BYTES], "little", signed=True)
