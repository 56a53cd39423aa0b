"""Who waits for a row, the most important first."""

from collections.abc import Iterator
from heapq import heappop, heappush
from itertools import count
from typing import Generic, TypeVar

from rackscale.core import RequestId

T = TypeVar("T")


class Waiting(Generic[T]):
    """A queue by importance, then by the order of pushing.

    Whoever leaves early is skipped when its turn comes: an entry of the heap counts only as long as the
    key still stands for it.
    """

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, RequestId]] = []
        self._items: dict[RequestId, tuple[int, T]] = {}
        self._order = count()

    def __len__(self) -> int:
        return len(self._items)

    def __contains__(self, key: RequestId) -> bool:
        return key in self._items

    def __iter__(self) -> Iterator[T]:
        """The items, in the order of pushing."""
        return (item for _, item in self._items.values())

    def push(self, key: RequestId, importance: float, item: T) -> None:
        """Queue an item under a key that is not queued."""
        order = next(self._order)
        heappush(self._heap, (importance, order, key))
        self._items[key] = order, item

    def peek(self) -> T | None:
        """The next item, or None."""
        while self._heap:
            _, order, key = self._heap[0]
            queued_order, item = self._items.get(key, (None, None))
            if queued_order == order:
                return item
            heappop(self._heap)
        return None

    def remove(self, key: RequestId) -> T:
        """Take out the item queued under the key, wherever it stands."""
        return self._items.pop(key)[1]

    def drain(self) -> list[T]:
        """Take out all, in order."""
        items = []
        while (item := self.peek()) is not None:
            del self._items[self._heap[0][2]]
            items.append(item)
        return items
