"""Pairing messages of several streams by their time stamps."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Generic, TypeVar

Item = TypeVar("Item")


class StampPairer(Generic[Item]):
    """Collects items of several streams and gives them out in sets of one instant.

    Args:
        streams: their names; a set has the same order.
        tolerance: s, >= 0, the largest difference of two stamps in a set.
        depth: items kept a stream while the others are awaited.
    """

    def __init__(self, streams: Sequence[str], tolerance: float, depth: int = 8) -> None:
        self._tolerance = tolerance
        self._waiting: dict[str, deque[tuple[float, Item]]] = {
            name: deque(maxlen=depth) for name in streams
        }

    def add(self, stream: str, stamp: float, item: Item) -> list[Item] | None:
        """Take in one item with its stamp (s).

        Returns:
            One item a stream, all within the tolerance of this stamp, when this one completes a
            set; everything older is forgotten. Otherwise None.
        """
        own = self._waiting[stream]
        if own and stamp < own[-1][0]:  # the clock was set back: what waits will never match
            for queue in self._waiting.values():
                queue.clear()
        own.append((stamp, item))
        chosen = [self._nearest(queue, stamp) for queue in self._waiting.values()]
        found = [each for each in chosen if each is not None]
        if len(found) < len(chosen):
            return None
        for queue, (used, _) in zip(self._waiting.values(), found, strict=True):
            while queue and queue[0][0] <= used:
                queue.popleft()
        return [each for _, each in found]

    def missing(self, stamp: float) -> list[str]:
        """Streams that have nothing within the tolerance of `stamp` (s)."""
        return [
            name for name, queue in self._waiting.items() if self._nearest(queue, stamp) is None
        ]

    def _nearest(self, queue: deque[tuple[float, Item]], stamp: float) -> tuple[float, Item] | None:
        within = [each for each in queue if abs(each[0] - stamp) <= self._tolerance + 1e-9]
        return min(within, key=lambda each: abs(each[0] - stamp), default=None)
