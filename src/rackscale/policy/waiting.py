"""Who waits for a row, the most important first."""

from collections.abc import Iterator
from heapq import heapify, heappop, heappush
from itertools import count
from typing import Generic, TypeVar

from rackscale.core import RequestId

T = TypeVar("T")


class Waiting(Generic[T]):
    """A queue by importance, then by arrival; whoever leaves early is skipped when it comes up."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, RequestId]] = []
        self._items: dict[RequestId, T] = {}
        self._order = count()

    def __len__(self) -> int:
        return len(self._items)

    def __contains__(self, key: RequestId) -> bool:
        return key in self._items

    def __iter__(self) -> Iterator[T]:
        """The items, by arrival."""
        return iter(self._items.values())

    def push(self, key: RequestId, importance: float, item: T) -> None:
        """Queue an item under a key that is not queued."""
        heappush(self._heap, (importance, next(self._order), key))
        self._items[key] = item

    def peek(self) -> T | None:
        """The next item, or None."""
        while self._heap and self._heap[0][2] not in self._items:
            heappop(self._heap)
        return self._items[self._heap[0][2]] if self._heap else None

    def remove(self, key: RequestId) -> T:
        """Take an item out, wherever it stands."""
        item = self._items.pop(key)
        self._heap = [entry for entry in self._heap if entry[2] != key]
        heapify(self._heap)
        return item

    def pop(self) -> T:
        """Take out the item that `peek` showed."""
        return self._items.pop(heappop(self._heap)[2])

    def drain(self) -> list[T]:
        """Take out all, in order."""
        items = []
        while self.peek() is not None:
            items.append(self.pop())
        return items
