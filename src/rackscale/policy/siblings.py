"""Who waits for another request's prompt, to share its blocks instead of computing them again."""

from typing import Generic, TypeVar

from rackscale.core import RequestId

T = TypeVar("T")


class Siblings(Generic[T]):
    """Leaders whose prompt is not computed yet, and what is held until it is, in order of arrival."""

    def __init__(self) -> None:
        self._held: dict[RequestId, dict[RequestId, T]] = {}
        self._leader_of: dict[RequestId, RequestId] = {}
        self._leaders: set[RequestId] = set()

    def __len__(self) -> int:
        """How many are held."""
        return len(self._leader_of)

    def __contains__(self, key: RequestId) -> bool:
        return key in self._leader_of

    def expect(self, leader: RequestId) -> None:
        """The leader's prompt is to be computed."""
        self._leaders.add(leader)

    def expects(self, leader: RequestId | None) -> bool:
        """Whether a sibling of the leader has something to wait for."""
        return leader in self._leaders

    def hold(self, leader: RequestId, key: RequestId, item: T) -> None:
        """Hold an item until its leader, which is expected, has its prompt computed or is gone."""
        self._held.setdefault(leader, {})[key] = item
        self._leader_of[key] = leader

    def release(self, leader: RequestId) -> list[T]:
        """The leader's prompt is computed, or it is gone: give those held for it."""
        self._leaders.discard(leader)
        held = self._held.pop(leader, {})
        for key in held:
            del self._leader_of[key]
        return list(held.values())

    def remove(self, key: RequestId) -> T:
        """Take out an item that is held."""
        leader = self._leader_of.pop(key)
        item = self._held[leader].pop(key)
        if not self._held[leader]:
            del self._held[leader]
        return item

    def drain(self) -> list[T]:
        """Take out all, and expect nobody."""
        items = [item for held in self._held.values() for item in held.values()]
        self._held.clear()
        self._leader_of.clear()
        self._leaders.clear()
        return items
