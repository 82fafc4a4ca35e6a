"""Clearing away the shared memory that killed processes have left behind.

Fast DDS keeps a segment for each process in /dev/shm, and beside it an empty file that the process
holds locked as long as it lives (`_el`). A process that is killed removes neither, and at 6.5 MB a
node a container's shared memory is soon full. `fastdds shm clean` does the same by hand.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import time
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path("/dev/shm")

_LOCK = re.compile(r"fastrtps_[0-9a-f]{16}_el")
_LEAST_AGE = 10.0  # s; a process that starts makes the file a moment before it locks it


@dataclass(frozen=True)
class Cleared:
    """How many segments were removed, and how many bytes they had."""

    segments: int = 0
    size: int = 0

    def __str__(self) -> str:
        return (
            f"removed {self.segments} shared memory segments ({self.size / 1e6:.0f} MB) of "
            "processes that had been killed"
        )


def clear_shared_memory(folder: Path = FOLDER, least_age: float = _LEAST_AGE) -> Cleared:
    """Remove the segments whose owners are dead; those of others' that may not be touched stay.

    Args:
        folder: where shared memory lies.
        least_age: s; what is younger stays.
    """
    sizes = []
    for lock in sorted(folder.glob("fastrtps_*_el")):
        if _LOCK.fullmatch(lock.name):
            with contextlib.suppress(OSError):  # locked, gone meanwhile, or somebody else's
                sizes.append(_remove(lock, least_age))
    removed = [size for size in sizes if size is not None]
    return Cleared(len(removed), sum(removed))


def _remove(lock: Path, least_age: float) -> int | None:
    """Remove a segment and its lock file, while holding the lock; its size, None: it stays.

    Raises:
        OSError: its owner lives, or it is not ours to remove.
    """
    with lock.open("rb") as file:
        if time.time() - os.fstat(file.fileno()).st_mtime < least_age:
            return None
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        segment = lock.with_name(lock.name.removesuffix("_el"))
        size = 0
        with contextlib.suppress(FileNotFoundError):
            size = segment.stat().st_size
            segment.unlink()
        lock.unlink()
    return size
