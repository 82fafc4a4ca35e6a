"""The frames of recorded episodes, as training draws from them."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from internvla_ros.data.chunks import PauseFilter
from internvla_ros.data.lerobot import DatasetError, LeRobotDataset, RecordedEpisode
from internvla_ros.data.statistics import readable
from internvla_ros.motion.se3 import matrix_to_rpy, rot6d_to_matrix, rpy_to_matrix
from internvla_ros.train.views import DecodedViews, Views, stored_views

POINT_COLUMNS = ("annotation.point.pick", "annotation.point.place")


@dataclass(frozen=True)
class EpisodeFrames:
    """All frames of a set of episodes, concatenated; N frames in E episodes.

    `views[camera]` uint8 [N, s, s, 3]; `state` [N, 10] and `action` [N, 7] in SI units; `onward`
    [N, 7] the same actions as they go on from the action before, not from its frame; `points`
    [N, 2, 2] (pick, place) in 0..1 of the front view, NaN where they are not annotated; `first` and
    `last` [N]: the frame indices that bound each frame's episode (inclusive); `records` the
    episodes' annotations, and `record_of` [N], `row_of` [N] each frame's episode and its row there.
    """

    views: Mapping[str, Views]
    state: NDArray[np.float32]
    action: NDArray[np.float32]
    onward: NDArray[np.float32]
    points: NDArray[np.float32]
    first: NDArray[np.int64]
    last: NDArray[np.int64]
    records: tuple[RecordedEpisode, ...]
    record_of: NDArray[np.int64]
    row_of: NDArray[np.int64]
    stored_size: tuple[int, int]
    begins: NDArray[np.int64]
    """[K]: the frames that samples are drawn from: no damaged ones and, where wanted, no pauses."""

    def __len__(self) -> int:
        return len(self.state)

    def instruction(self, frame: int) -> str:
        """The task of the episode that holds a frame."""
        return self.records[self.record_of[frame]].instruction

    @property
    def annotated(self) -> bool:
        """Whether it is known where things are, so that conversations can be made."""
        return bool(self.records) and POINT_COLUMNS[0] in self.records[0].columns

    def chunks(self, frames: NDArray[np.int64], length: int) -> NDArray[np.float32]:
        """Actions [B, length, 7] from each frame on, SI units, each going on from the one before.

        Past an episode's end the pose and the gripper are held: zero deltas, the last gripper
        target. (Padding the gripper with zeros would teach to close it.)
        """
        steps = frames[:, None] + np.arange(length)
        inside = steps <= self.last[frames][:, None]
        actions = self.onward[np.minimum(steps, self.last[frames][:, None])]
        actions[:, 0] = self.action[frames]
        actions[..., :6] *= inside[..., None]
        return actions


@dataclass(frozen=True)
class Reading:
    """How episodes are read.

    Attributes:
        store: folder for decoded views; None: they are decoded whenever they are used.
        episodes: so many from the first; None: all.
        drop_pauses: no chunk begins where arm and gripper rest.
        skip_damaged: leave damaged episodes out, and say which, instead of raising.
        deadline: `time.monotonic()` at which to stop.
        progress: show bars.
    """

    store: Path | None = None
    episodes: int | None = None
    drop_pauses: bool = False
    skip_damaged: bool = False
    deadline: float = math.inf
    progress: bool = True


def load_frames(
    dataset: LeRobotDataset,
    cameras: Sequence[str],
    side: int,
    how: Reading,
    measured: bool = False,
) -> EpisodeFrames:
    """Episodes of a dataset with these cameras' views of `side` px.

    `measured`: each action was recorded as what leads on from the tip's pose in its frame, not from
    the pose commanded before.

    Raises:
        DatasetError: a file is damaged, and not to be skipped, or nothing is left.
        StoppedError: the time was over before all views were stored.
    """
    wanted = range(len(dataset) if how.episodes is None else min(how.episodes, len(dataset)))
    columns = [name for name, kind in dataset.features.items() if kind["dtype"] != "video"]
    told: list[str] | None = [] if how.skip_damaged else None
    records = list(readable(dataset, wanted, columns, told))
    if not records:
        raise DatasetError(f"{dataset.root} has no episode that can be read")
    lengths = np.array([len(r) for r in records])
    ends = np.cumsum(lengths)
    first = np.repeat(ends - lengths, lengths)
    record_of = np.repeat(np.arange(len(records)), lengths)
    views: dict[str, Views] = {}
    usable = np.ones(len(records), bool)
    numbers = [record.index for record in records]
    for camera in cameras:
        if how.store is None:
            views[camera] = DecodedViews(dataset, numbers, camera, side, first, record_of)
            continue
        views[camera], damaged = stored_views(
            dataset,
            numbers,
            camera,
            side,
            how.store,
            how.deadline,
            how.progress,
            how.skip_damaged,
        )
        usable[list(damaged)] = False
        told = [*(told or []), *damaged.values()]
    for line in told or []:
        print(f"left out: {line}", file=sys.stderr)
    moving = np.concatenate([_moving(r, how.drop_pauses) for r in records])
    actions = np.concatenate([r.action for r in records]).astype(np.float32)
    following = [onward(r.state, r.action) if measured else r.action for r in records]
    size = dataset.size("front") if "front" in dataset.cameras else (1, 1)
    return EpisodeFrames(
        views=views,
        state=np.concatenate([r.state for r in records]).astype(np.float32),
        action=actions,
        onward=np.concatenate(following).astype(np.float32),
        points=_points(records, size),
        first=first,
        last=np.repeat(ends - 1, lengths),
        records=tuple(records),
        record_of=record_of,
        row_of=np.concatenate([np.arange(n) for n in lengths]),
        stored_size=size,
        begins=np.flatnonzero(moving & usable[record_of]),
    )


def _moving(record: RecordedEpisode, drop_pauses: bool) -> NDArray[np.bool_]:
    """Frames at which a chunk may begin."""
    if not drop_pauses:
        return np.ones(len(record), bool)
    return ~PauseFilter().pauses(record.action)


def onward(states: NDArray[np.floating], recorded: NDArray[np.floating]) -> NDArray[np.float32]:
    """Actions [T, 7] from the pose that each one leads to, to that of the next.

    `states` [T, 10] and the actions `recorded` [T, 7] are those of an episode, each action leading
    on from the pose in its state; the first stays as it is.
    """
    actions = np.array(recorded, np.float64)
    reached = states[:, :3] + actions[:, :3]
    turned = [
        rpy_to_matrix(action[3:6]) @ rot6d_to_matrix(state[3:9])
        for action, state in zip(actions, states, strict=True)
    ]
    actions[1:, :3] = np.diff(reached, axis=0)
    actions[1:, 3:6] = [matrix_to_rpy(b @ a.T) for a, b in pairwise(turned)]
    return actions.astype(np.float32)


def _points(records: Sequence[RecordedEpisode], size: tuple[int, int]) -> NDArray[np.float32]:
    rows = [
        np.stack([r.columns[name] for name in POINT_COLUMNS], axis=1)
        if all(name in r.columns for name in POINT_COLUMNS)
        else np.full((len(r), 2, 2), np.nan)
        for r in records
    ]
    return (np.concatenate(rows) / size).astype(np.float32)
