"""The pictures of recorded episodes, by frame: decoded once into a file, or anew each time."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from internvla_ros.data.lerobot import DatasetError, LeRobotDataset
from internvla_ros.model.images import resize
from internvla_ros.train.errors import StoppedError

KEPT_EPISODES = 8
"""Decoded episodes that a process remembers where nothing is stored."""
_NOTE_EVERY = 20


class Views(Protocol):
    """One camera's pictures."""

    def __getitem__(self, frames: NDArray[np.int64]) -> NDArray[np.uint8]:
        """The pictures uint8[B, s, s, 3] of frames [B]."""
        ...


def stored_views(
    dataset: LeRobotDataset,
    episodes: Sequence[int],
    camera: str,
    side: int,
    folder: Path,
    deadline: float = math.inf,
    progress: bool = True,
    skip: bool = False,
) -> tuple[NDArray[np.uint8], dict[int, str]]:
    """All frames of these episodes as a file uint8[N, side, side, 3], mapped into memory.

    It is written at the first call; a call that was cut short is gone on with. Where `skip`,
    episodes whose video is damaged stay black; their places, and why, are returned too.

    Raises:
        StoppedError: `time.monotonic()` has passed the deadline before it is complete.
        DatasetError: a video is damaged, and not to be skipped; names the file.
    """
    lengths = [int(dataset.episodes[index]["length"]) for index in episodes]
    path = folder / f"{camera}_{side}.npy"
    note = path.with_suffix(".json")
    what: dict[str, object] = {
        "data": str(dataset.root.resolve()),
        "episodes": list(episodes),
        "lengths": lengths,
    }
    done, damaged = _done(path, note, what)
    if damaged and not skip:
        done = min(done, *damaged)
        damaged = {}
    shape = (sum(lengths), side, side, 3)
    if done < len(episodes):
        folder.mkdir(parents=True, exist_ok=True)
        mode = "r+" if done else "w+"
        target = np.lib.format.open_memmap(
            path, mode=mode, dtype=np.uint8, shape=None if done else shape
        )
        start = sum(lengths[:done])
        bar = tqdm(
            total=len(episodes),
            initial=done,
            desc=f"reading {dataset.root.name} {camera}",
            unit="episode",
            disable=not progress,
        )
        with bar:
            for position in range(done, len(episodes)):
                end = start + lengths[position]
                try:
                    target[start:end] = _decoded(dataset, episodes[position], camera, side)
                except DatasetError as error:
                    if not skip:
                        raise
                    damaged[position] = str(error)
                start = end
                bar.update()
                over = time.monotonic() >= deadline
                if over or position % _NOTE_EVERY == 0 or position + 1 == len(episodes):
                    target.flush()
                    _write(note, {**what, "done": position + 1, "damaged": damaged})
                if over and position + 1 < len(episodes):
                    raise StoppedError
    return np.lib.format.open_memmap(path, mode="r"), damaged


class DecodedViews:
    """Decodes a frame's episode whenever it is asked for, and remembers the last few."""

    def __init__(
        self,
        dataset: LeRobotDataset,
        episodes: Sequence[int],
        camera: str,
        side: int,
        first: NDArray[np.int64],
        episode_of: NDArray[np.int64],
    ) -> None:
        """`first` [N] and `episode_of` [N]: each frame's episode's first frame and its position."""
        self._first, self._episode_of = first, episode_of
        self._episodes = episodes

        @lru_cache(maxsize=KEPT_EPISODES)
        def decoded(position: int) -> NDArray[np.uint8]:
            return _decoded(dataset, self._episodes[position], camera, side)

        self._decoded = decoded

    def __getitem__(self, frames: NDArray[np.int64]) -> NDArray[np.uint8]:
        """The pictures uint8[B, s, s, 3] of frames [B]."""
        return np.stack(
            [self._decoded(int(self._episode_of[f]))[f - self._first[f]] for f in frames]
        )


def _decoded(dataset: LeRobotDataset, episode: int, camera: str, side: int) -> NDArray[np.uint8]:
    frames = dataset.frames(episode, camera)
    return np.stack([resize(frame, (side, side)) for frame in frames])


def _done(path: Path, note: Path, what: dict[str, object]) -> tuple[int, dict[int, str]]:
    """Episodes that the file holds already (0: none, or another data set's), and damaged ones."""
    try:
        said = json.loads(note.read_text())
    except (OSError, ValueError):
        return 0, {}
    if not path.is_file() or any(said.get(key) != value for key, value in what.items()):
        return 0, {}
    return int(said["done"]), {int(k): str(v) for k, v in said["damaged"].items()}


def _write(path: Path, values: dict[str, object]) -> None:
    temporary = path.with_name(path.name + ".writing")
    temporary.write_text(json.dumps(values))
    os.replace(temporary, path)
