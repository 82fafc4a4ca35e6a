"""Frames out of recorded episodes: our data engine's, and those of InternData-M1.

Our own are asked about as the policy is when it acts: the whole task at once, in all of its views.
InternData-M1 is another robot with other cameras: each picture is asked about by itself, for the
boxes of the task's two objects, their points, and the gripper's path to the end. Its layout is that
of `data.interndata`, which also says what of it could be verified; videos that are missing leave
their camera's frames out (`InternFrames.missing`).
"""

from __future__ import annotations

from functools import lru_cache, partial
from pathlib import Path

import numpy as np

from internvla_ros.data.grounding import GroundingFrame
from internvla_ros.data.interndata import InternDataset, InternEpisode
from internvla_ros.data.lerobot.layout import DatasetError
from internvla_ros.data.lerobot.reader import LeRobotDataset, RecordedEpisode
from internvla_ros.evaluate.benchmarks.sample import Array, BenchmarkError, Image, Sample, Truth
from internvla_ros.spatial.prompts import point_prompt, spatial_prompt, trace_prompt

ROLES = ("pick", "place")
INTERN_STRIDE = 15
"""Every which frame of InternData-M1 is asked about: half a second."""


class TaskFrames:
    """Every frame of a LeRobot data set with the data engine's annotations.

    Raises:
        DatasetError: it is none.
    """

    def __init__(self, root: Path, cameras: tuple[str, ...]) -> None:
        self._dataset, self._cameras = LeRobotDataset(root), cameras
        self._ends = np.cumsum([int(meta["length"]) for meta in self._dataset.episodes])
        self._episode = lru_cache(2)(self._dataset.episode)
        self._video = lru_cache(2 * len(cameras))(self._dataset.frames)

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def __getitem__(self, index: int) -> Sample:
        number = int(np.searchsorted(self._ends, index, side="right"))
        row = index - (int(self._ends[number - 1]) if number else 0)
        try:
            episode = self._episode(number)
            columns = [self._columns(episode, kind) for kind in ("box", "point")]
            trace = episode.trace[row].astype(np.float64)
        except (DatasetError, KeyError) as error:
            raise BenchmarkError(f"{self._dataset.root}, episode {number}: {error}") from error
        boxes, points = (np.stack([column[row] for column in kind]) for kind in columns)
        return Sample(
            name=f"episode {number} frame {row}",
            group=f"episode {number}",
            views=partial(self._views, number, row),
            question=episode.instruction,
            truth=Truth(
                boxes, points, trace if np.isfinite(trace).all() else None, boxes, roles=ROLES
            ),
            task=True,
        )

    def _columns(self, episode: RecordedEpisode, kind: str) -> list[Array]:
        return [episode.column(f"annotation.{kind}.{r}").astype(np.float64) for r in ROLES]

    def _views(self, episode: int, row: int) -> list[Image]:
        try:
            return [self._video(episode, camera)[row] for camera in self._cameras]
        except DatasetError as error:
            raise BenchmarkError(str(error)) from error


class InternFrames:
    """Three questions about every `INTERN_STRIDE`-th frame of every camera that has a video.

    Attributes:
        missing: why there is nothing to see, a line for each camera of an episode without video.

    Raises:
        DatasetError: it is no such data set.
    """

    KINDS = ("boxes", "points", "trace")

    def __init__(self, root: Path) -> None:
        self._root, self._dataset = root, InternDataset(root)
        self._episode = lru_cache(2)(self._dataset.episode)
        self._video = lru_cache(2)(self._read_video)
        self._places: list[tuple[int, str, int, str]] = []
        self.missing: list[str] = []
        for number in range(len(self._dataset)):
            self._add(self._dataset.episode(number))

    def _add(self, episode: InternEpisode) -> None:
        gone = episode.missing()
        self.missing += [f"episode {episode.index} {camera}: {why}" for camera, why in gone.items()]
        self._places += [
            (episode.index, camera, row, kind)
            for camera in episode.cameras
            if camera not in gone
            for row in range(0, len(episode), INTERN_STRIDE)
            for kind in self.KINDS
        ]

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> Sample:
        number, camera, row, kind = self._places[index]
        try:
            frame = self._episode(number).ground(row, camera)
        except DatasetError as error:
            raise BenchmarkError(
                f"{self._root}, episode {number}, {camera}, frame {row}: {error}"
            ) from error
        question, truth = _asked(frame, kind)
        return Sample(
            name=f"episode {number} {camera} frame {row} {kind}",
            group=f"episode {number}",
            views=partial(self._views, number, camera, row),
            question=question,
            truth=truth,
        )

    def _read_video(self, number: int, camera: str) -> list[Image]:
        images = self._episode(number).images(camera)
        if images is None:
            raise DatasetError(f"{self._root}, episode {number}: {camera} has no video")
        return [np.ascontiguousarray(image) for image in images[::INTERN_STRIDE]]

    def _views(self, number: int, camera: str, row: int) -> list[Image]:
        try:
            return [self._video(number, camera)[row // INTERN_STRIDE]]
        except DatasetError as error:
            raise BenchmarkError(str(error)) from error


def _asked(frame: GroundingFrame, kind: str) -> tuple[str, Truth]:
    """A question about a frame, and its answer."""
    boxes = np.asarray(frame.boxes, np.float64)
    if kind == "boxes":
        return spatial_prompt(frame.instruction), Truth(boxes=boxes, roles=ROLES)
    if kind == "points":
        points = np.array([frame.pick_point, frame.place_point], np.float64)
        return point_prompt(frame.instruction), Truth(points=points, within=boxes, roles=ROLES)
    trace = np.asarray(frame.trace, np.float64)
    return trace_prompt(frame.instruction), Truth(trace=trace)
