"""Recording on and on in a bounded space: bags and films, the oldest dropped first."""

from __future__ import annotations

import re
import shutil
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from internvla_ros.recording.bag import Bag, BagError
from internvla_ros.recording.video import VideoFile

_MEGA = 1_000_000
_LONGEST = 60  # characters of a name in a file's name


@dataclass(frozen=True)
class Limits:
    """What a recording may take.

    Attributes:
        split_mb: MB after which a bag is closed and the next part begun.
        max_mb: MB that all files of a recording may take; at least twice `split_mb`.
        reserve_mb: MB that must stay free on the disk.
    """

    split_mb: float = 500.0
    max_mb: float = 5000.0
    reserve_mb: float = 1000.0

    def __post_init__(self) -> None:
        if self.max_mb < 2 * self.split_mb:
            raise BagError(
                f"max_mb is {self.max_mb:g}; it must be at least twice split_mb "
                f"({self.split_mb:g}), so that an old file can be dropped while the next one grows"
            )


@dataclass
class Recording:
    """Stretches of recording, each with a name: NAME.mcap, NAME_part2.mcap ... and NAME.mp4.

    Between stretches only latched messages are remembered. When a stretch ends, its outcome goes
    into the names of its files. Only files that this recording wrote are ever deleted.

    Args:
        folder: where the files go; it is made.
        limits: what they may take.

    Raises:
        BagError: the disk has no room.
    """

    folder: Path
    limits: Limits = field(default_factory=Limits)
    dropped: int = field(default=0, init=False)
    """Files deleted to make room."""

    def __post_init__(self) -> None:
        self._name, self._parts = "", 1
        self._bag: Bag | None = None
        self._film: VideoFile | None = None
        self._paths: list[Path] = []
        self._kept: deque[tuple[Path, int]] = deque()
        self._latched: dict[str, tuple[str, bytes]] = {}
        self._check_room()

    @property
    def active(self) -> bool:
        """Whether a stretch is being recorded."""
        return self._bag is not None

    @property
    def path(self) -> Path | None:
        """The bag that is being written."""
        return self._bag.path if self._bag is not None else None

    @property
    def size(self) -> int:
        """Bytes of all files, without what is being written of a film."""
        growing = self._bag.size if self._bag is not None else 0
        return growing + sum(size for _, size in self._kept)

    def begin(self, name: str, stamp: float) -> None:
        """End the stretch before and begin one at `stamp` (s); it starts with what is latched.

        Raises:
            BagError: the disk has no room, or a file cannot be made.
        """
        self.end()
        self._name = re.sub(r"\W+", "_", name).strip("_")[:_LONGEST] or "recording"
        self._parts = 1
        self._open(self._name, stamp)

    def write(
        self, topic: str, typename: str, data: bytes, stamp: float, *, latched: bool = False
    ) -> None:
        """Add a message, as `Bag.write` does.

        Args:
            latched: it holds until the next one of its topic: every further bag begins with it.

        Raises:
            BagError: the disk is full or gone. What was written before stays readable.
        """
        if latched:
            self._latched[topic] = (typename, data)
        if self._bag is None:
            return
        if self._bag.messages and self._bag.size + len(data) > self.limits.split_mb * _MEGA:
            self._close_bag()
            self._parts += 1
            self._open(f"{self._name}_part{self._parts}", stamp)
            if latched:
                return
        self._bag.write(topic, typename, data, stamp)

    def show(self, picture: NDArray[np.uint8], rate: int) -> None:
        """Add a picture uint8 [h, w, 3] RGB, even in height and width, to the stretch's film.

        Args:
            rate: pictures a second, told by the first one.

        Raises:
            VideoError: the film cannot be made.
        """
        if self._bag is None:
            return
        if self._film is None:
            height, width, _ = picture.shape
            path = self.folder / f"{self._name}.mp4"
            self._film = VideoFile(path, width, height, rate)
        self._film.write(picture)

    def end(self, outcome: str = "") -> list[Path]:
        """Finish the stretch; its files, by their last names."""
        if self._bag is None:
            return []
        try:
            self._close_bag()
        finally:
            if self._film is not None:
                self._film.close()
                self._paths.append(self._film.path)
            paths, self._paths, self._film = self._paths, [], None
        if outcome:
            paths = [path.rename(path.with_stem(f"{path.stem}_{outcome}")) for path in paths]
        self._kept.extend((path, path.stat().st_size) for path in paths)
        self._drop_oldest(self.limits.max_mb)
        return [path for path in paths if path.exists()]

    def _close_bag(self) -> None:
        bag, self._bag = self._bag, None
        assert bag is not None
        self._paths.append(bag.path)
        bag.close()

    def _open(self, name: str, stamp: float) -> None:
        self._drop_oldest(self.limits.max_mb - self.limits.split_mb)
        self._check_room()
        self._bag = Bag(self.folder / f"{name}.mcap")
        for topic, (typename, data) in self._latched.items():
            self._bag.write(topic, typename, data, stamp)

    def _drop_oldest(self, limit_mb: float) -> None:
        """Keep to a limit: old stretches go first, then parts of this one."""
        while self._kept and self.size + _total(self._paths) > limit_mb * _MEGA:
            self._delete(self._kept.popleft()[0])
        while self._paths and self.size + _total(self._paths) > limit_mb * _MEGA:
            self._delete(self._paths.pop(0))

    def _delete(self, path: Path) -> None:
        path.unlink(missing_ok=True)
        self.dropped += 1

    def _check_room(self) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            free = shutil.disk_usage(self.folder).free / _MEGA
        except OSError as error:
            raise BagError(f"cannot record into {self.folder}: {error.strerror}") from error
        if free < self.limits.reserve_mb + self.limits.split_mb:
            raise BagError(
                f"{self.folder}: {free:.0f} MB are free; a file of {self.limits.split_mb:g} MB "
                f"and a reserve of {self.limits.reserve_mb:g} MB are needed"
            )


def _total(paths: list[Path]) -> int:
    return sum(path.stat().st_size for path in paths if path.exists())
