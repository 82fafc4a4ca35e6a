"""A recording without an end in a bounded space: a row of bags, the oldest dropped first."""

from __future__ import annotations

import shutil
from collections import deque
from pathlib import Path

from internvla_ros.recording.bag import Bag, BagError

_MEGA = 1_000_000


class RollingBag:
    """Bags PREFIX_0000.mcap, PREFIX_0001.mcap ... of which the newest are kept.

    Only files that this recording wrote are ever deleted.
    """

    def __init__(
        self, folder: Path, prefix: str, *, split_mb: float, max_mb: float, reserve_mb: float
    ) -> None:
        """
        Args:
            folder, prefix: where the files go and how their names begin.
            split_mb: MB after which a file is closed and the next one begun.
            max_mb: MB that all files together may take; at least twice `split_mb`.
            reserve_mb: MB that must stay free on the disk.

        Raises:
            BagError: the limits leave no room, or the first file cannot be made.
        """
        if max_mb < 2 * split_mb:
            raise BagError(
                f"max_mb is {max_mb:g}; it must be at least twice split_mb ({split_mb:g}), so "
                "that an old file can be dropped while the next one grows"
            )
        self._folder, self._prefix = folder, prefix
        self._split, self._limit = split_mb * _MEGA, max_mb * _MEGA
        self._reserve = reserve_mb * _MEGA
        self._closed: deque[tuple[Path, int]] = deque()
        self._latched: dict[str, tuple[str, bytes]] = {}
        self._count = 0
        self.dropped = 0
        """Files deleted to make room."""
        self._bag = self._next()

    @property
    def path(self) -> Path:
        """The file that is being written."""
        return self._bag.path

    @property
    def size(self) -> int:
        """Bytes of all files that are kept."""
        return self._bag.size + sum(size for _, size in self._closed)

    def write(
        self, topic: str, typename: str, data: bytes, stamp: float, *, latched: bool = False
    ) -> None:
        """Add a message, as `Bag.write` does.

        Args:
            latched: it holds until the next one of its topic: every further file begins with it.

        Raises:
            BagError: the disk is full or gone. What was written before stays readable.
        """
        if self._bag.size + len(data) > self._split and self._bag.messages:
            self._turn(stamp)
        self._bag.write(topic, typename, data, stamp)
        if latched:
            self._latched[topic] = (typename, data)

    def close(self) -> None:
        """Finish the file that is being written."""
        self._bag.close()

    def _turn(self, stamp: float) -> None:
        """Close the file, drop the oldest ones, and begin the next."""
        self._bag.close()
        self._closed.append((self._bag.path, self._bag.path.stat().st_size))
        while self._closed and self.size + self._split > self._limit:
            path, _ = self._closed.popleft()
            path.unlink(missing_ok=True)
            self.dropped += 1
        self._bag = self._next()
        for topic, (typename, data) in self._latched.items():
            self._bag.write(topic, typename, data, stamp)

    def _next(self) -> Bag:
        bag = Bag(self._folder / f"{self._prefix}_{self._count:04d}.mcap")
        free = shutil.disk_usage(self._folder).free
        if free < self._reserve + self._split:
            bag.close()
            bag.path.unlink()
            raise BagError(
                f"{self._folder}: {free / _MEGA:.0f} MB are free; a file of "
                f"{self._split / _MEGA:.0f} MB and a reserve of {self._reserve / _MEGA:.0f} MB are "
                "needed"
            )
        self._count += 1
        return bag
