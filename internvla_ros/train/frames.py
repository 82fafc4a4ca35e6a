"""Recorded episodes decoded once into memory, at the sizes that the networks see."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from internvla_ros.data.lerobot import LeRobotDataset, RecordedEpisode
from internvla_ros.model.images import resize


@dataclass(frozen=True)
class EpisodeFrames:
    """All frames of a set of episodes, concatenated; N frames in E episodes.

    `views[camera]` uint8 [N, s, s, 3]; `state` [N, 10] and `action` [N, 7] in SI units; `points`
    [N, 2, 2] (pick, place) in 0..1 of the front view; `first` and `last` [N]: the frame indices
    that bound each frame's episode (inclusive); `records` the episodes' annotations, and
    `record_of` [N], `row_of` [N] each frame's episode and its row there.
    """

    views: dict[str, NDArray[np.uint8]]
    state: NDArray[np.float32]
    action: NDArray[np.float32]
    points: NDArray[np.float32]
    first: NDArray[np.int64]
    last: NDArray[np.int64]
    records: tuple[RecordedEpisode, ...]
    record_of: NDArray[np.int64]
    row_of: NDArray[np.int64]
    stored_size: tuple[int, int]

    def __len__(self) -> int:
        return len(self.state)

    def instruction(self, frame: int) -> str:
        """The task of the episode that holds a frame."""
        return self.records[self.record_of[frame]].instruction

    def chunks(self, frames: NDArray[np.int64], length: int) -> NDArray[np.float32]:
        """Actions [B, length, 7] from each frame on, SI units.

        Past an episode's end the pose and the gripper are held: zero deltas, the last gripper
        target. (Padding the gripper with zeros would teach to close it.)
        """
        steps = frames[:, None] + np.arange(length)
        inside = steps <= self.last[frames][:, None]
        actions = self.action[np.minimum(steps, self.last[frames][:, None])].copy()
        actions[..., :6] *= inside[..., None]
        return actions


def load_frames(
    root: Path,
    cameras: Sequence[str],
    size: int,
    episodes: range | None = None,
    progress: bool = True,
) -> EpisodeFrames:
    """Read the named episodes (all by default) of a dataset, with these cameras' views."""
    dataset = LeRobotDataset(root)
    numbers = range(len(dataset)) if episodes is None else episodes
    records: list[RecordedEpisode] = []
    images: dict[str, list[NDArray[np.uint8]]] = {camera: [] for camera in cameras}
    for index in tqdm(numbers, desc=f"reading {root.name}", unit="episode", disable=not progress):
        records.append(dataset.episode(index))
        for camera in cameras:
            frames = dataset.frames(index, camera)
            images[camera].append(np.stack([resize(frame, (size, size)) for frame in frames]))
    lengths = np.array([len(r) for r in records])
    ends = np.cumsum(lengths)
    width, height = dataset.size("front")
    pick = np.concatenate([r.column("annotation.point.pick") for r in records])
    place = np.concatenate([r.column("annotation.point.place") for r in records])
    return EpisodeFrames(
        views={camera: np.concatenate(parts) for camera, parts in images.items()},
        state=np.concatenate([r.state for r in records]).astype(np.float32),
        action=np.concatenate([r.action for r in records]).astype(np.float32),
        points=(np.stack([pick, place], axis=1) / (width, height)).astype(np.float32),
        first=np.repeat(ends - lengths, lengths),
        last=np.repeat(ends - 1, lengths),
        records=tuple(records),
        record_of=np.repeat(np.arange(len(records)), lengths),
        row_of=np.concatenate([np.arange(n) for n in lengths]),
        stored_size=(width, height),
    )
