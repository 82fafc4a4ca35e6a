"""InternData-M1: simulated Franka episodes with boxes, grippers' keypoints and steps a frame.

The layout is LeRobot v2.1; annotation columns hold a pickle a frame, of which only plain values and
arrays are taken (`data.pickles`).

    dataset = InternDataset("interndata_m1_sample")
    episode = dataset.episode(0)
    for frame in episode.frames():
        frame.images["ego_view"], frame.box("ego_view", episode.pick_uid)

Pixels are those of the stored pictures, boxes x1 y1 x2 y2 with pixel edges at whole numbers. What
the dataset leaves unsaid was found by laying its annotations over its pictures: the 11 points of
`tcp_2d_trace` are keypoints of the gripper at that frame, number 0 its mount, 1 to 5 one finger and
6 to 10 the other, of which 1 and 6 lie nearest to the tips (two to three centimetres from them);
quaternions are w x y z; a delta leads from the frame before's command to this frame's, rotations in
the base frame.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from internvla_ros.data.grounding import GroundingFrame
from internvla_ros.data.lerobot import LeRobotDataset, RecordedEpisode
from internvla_ros.data.lerobot.layout import DatasetError
from internvla_ros.data.pickles import load_plain
from internvla_ros.data.trace import future_waypoints

TIP_KEYPOINTS = (1, 6)
BACKGROUND = "defaultgroundplane"
CLOSED_WIDTH = 0.7853
"""The first gripper joint's angle, rad, when the fingers touch; 0 is open."""
TRACE_WAYPOINTS = 10
BOX_KINDS = ("tight", "loose")
_MOVE = re.compile(r"move the (?P<pick>.+?) to the top of the (?P<place>.+?)\.?", re.IGNORECASE)


@dataclass(frozen=True)
class Subtask:
    """One step of an episode: `name` such as "grasp", of object number `order`; frames
    start <= t < stop."""

    name: str
    order: int
    start: int
    stop: int


@dataclass(frozen=True, eq=False)
class InternFrame:
    """One moment of an episode.

    Attributes:
        index: its row in the episode.
        time: seconds from the episode's start.
        images: camera -> uint8[h, w, 3] RGB, None where the dataset has no video.
        missing: camera -> why it has no picture.
        subtask: the step that the frame belongs to, None before the first.
        boxes: camera -> object uid -> float[4], tight boxes of what is seen.
        keypoints: camera -> float[11, 2], of the gripper; may lie outside the picture.
        numbers: column -> float[n], of every `state.*` and `action.*` column.
    """

    index: int
    time: float
    images: Mapping[str, NDArray[np.uint8] | None]
    missing: Mapping[str, str]
    subtask: Subtask | None
    boxes: Mapping[str, Mapping[str, NDArray[np.float64]]]
    keypoints: Mapping[str, NDArray[np.float64]]
    numbers: Mapping[str, NDArray[np.float64]]

    def box(self, camera: str, uid: str) -> NDArray[np.float64]:
        """float[4], NaN where the object is not seen."""
        return self.boxes[camera].get(uid, np.full(4, np.nan))


class InternEpisode:
    """One episode; annotations are unpickled when asked for.

    Attributes:
        recorded: its columns as stored.
        index, instruction: its number and its task in words.
        cameras: their names, e.g. "base_view".
    """

    def __init__(self, dataset: LeRobotDataset, recorded: RecordedEpisode) -> None:
        self.recorded = recorded
        self.index = recorded.index
        self.instruction = recorded.instruction
        self.cameras = tuple(dataset.cameras)
        self._dataset = dataset

    def __len__(self) -> int:
        return len(self.recorded)

    @cached_property
    def instructions(self) -> tuple[str, ...]:
        """The instruction and every rewriting of it."""
        told = self.annotation("rewrite_instructions", 0)
        rewritten = told.get("rewrite_instructions", {}) if isinstance(told, dict) else {}
        return (self.instruction, *(str(text) for kind in rewritten.values() for text in kind))

    @cached_property
    def subtasks(self) -> tuple[Subtask, ...]:
        """The steps in their order; the last ends with the episode."""
        status = self.recorded.meta.get("task_data", {}).get("frame_status", {})
        starts = sorted(status.items(), key=lambda item: int(item[1]))
        stops = [int(start) for _, start in starts[1:]] + [len(self)]
        steps = []
        for (name, start), stop in zip(starts, stops, strict=True):
            order, _, step = name.rpartition("/")
            steps.append(Subtask(step, int(order or 0), int(start), stop))
        return tuple(steps)

    def subtask(self, row: int) -> Subtask | None:
        """The step that a frame belongs to."""
        return next((step for step in self.subtasks if step.start <= row < step.stop), None)

    @cached_property
    def pick_uid(self) -> str:
        """The object to move, as boxes are labelled."""
        return str(self.annotation("pick_obj_uid", 0))

    @cached_property
    def place_uid(self) -> str:
        """The object to put it on, as boxes are labelled."""
        return str(self.annotation("place_obj_uid", 0))

    @property
    def names(self) -> tuple[str, str] | None:
        """What the instruction calls the two; None where it is worded in another way."""
        match = _MOVE.fullmatch(self.instruction.strip())
        return None if match is None else (match["pick"], match["place"])

    def annotation(self, name: str, row: int) -> Any:
        """A frame's annotation such as "bbox3d" or "ego_view.bbox2d_tight_id2labels".

        Raises:
            DatasetError: there is no such column, or its pickle is damaged or not plain.
        """
        column = f"annotation.{name}"
        data = self.recorded.column(column)[row]
        where = f"{self.recorded.path}, {column}, row {row}"
        if not isinstance(data, bytes):
            raise DatasetError(f"{where} holds a {type(data).__name__}, not a pickle")
        return load_plain(data, where)

    def boxes(self, camera: str, row: int, kind: str = "tight") -> dict[str, NDArray[np.float64]]:
        """uid -> float[4]: the objects that a camera sees.

        Args:
            camera: its name.
            row: the frame.
            kind: "tight" around what is seen, or "loose" around the whole object.
        """
        if kind not in BOX_KINDS:
            raise ValueError(f"boxes are {' or '.join(BOX_KINDS)}, not {kind!r}")
        rows = self.annotation(f"{camera}.bbox2d_{kind}", row)
        labels = self.annotation(f"{camera}.bbox2d_{kind}_id2labels", row)
        found = {}
        for box in rows:
            uid = str(labels[str(box["semanticId"])]["class"])
            if uid != BACKGROUND:
                # The last pixel is part of the box, whose edge is therefore one further.
                edges = [box["x_min"], box["y_min"], box["x_max"] + 1, box["y_max"] + 1]
                found[uid] = np.array(edges, np.float64)
        return found

    def keypoints(self, camera: str) -> NDArray[np.float64]:
        """float[T, 11, 2], the gripper's keypoints in a camera's pixels."""
        return self._stacked(f"{camera}.tcp_2d_trace")

    @cached_property
    def keypoints_3d(self) -> NDArray[np.float64]:
        """float[T, 11, 3], the gripper's keypoints, m, in the simulator's world."""
        return self._stacked("tcp_3d_trace")

    def tip(self, camera: str) -> NDArray[np.float64]:
        """float[T, 2], the middle between the fingers' lowest keypoints, in a camera's pixels."""
        return self.keypoints(camera)[:, TIP_KEYPOINTS].mean(axis=1)

    def trace(self, camera: str, count: int = TRACE_WAYPOINTS) -> NDArray[np.float64]:
        """float[T, count, 2]: for each frame the tip's path from there to the end."""
        return future_waypoints(self.tip(camera), count)

    @property
    def state(self) -> NDArray[np.float64]:
        """float[T, 10] as in `data.episode.Frame`: position, two columns of rotation, opening."""
        rotation = self._rotation("state").as_matrix()
        columns = rotation[:, :, :2].transpose(0, 2, 1).reshape(len(self), 6)
        closed = self.recorded.column("state.gripper_width")[:, :1] / CLOSED_WIDTH
        opening = np.clip(1.0 - closed, 0.0, 1.0)
        return np.hstack([self.recorded.column("state.eef_position"), columns, opening])

    @property
    def action(self) -> NDArray[np.float64]:
        """float[T, 7] as in `data.episode.Episode`: base-frame deltas between commands, gripper.

        The first row leads from the measured pose.
        """
        position = self.recorded.column("action.eef_position")
        before = np.vstack([self.recorded.column("state.eef_position")[:1], position[:-1]])
        rotation = self._rotation("action")
        earlier = Rotation.concatenate([self._rotation("state")[:1], rotation[:-1]])
        turn = (rotation * earlier.inv()).as_euler("xyz")
        opened = self.recorded.column("action.gripper_close").reshape(-1, 1) < 0
        return np.hstack([position - before, turn, opened])

    def images(self, camera: str) -> NDArray[np.uint8] | None:
        """uint8[T, h, w, 3], None where the dataset has no video of it."""
        if not self._dataset.has_video(self.index, camera):
            return None
        return self._dataset.frames(self.index, camera)

    def missing(self) -> dict[str, str]:
        """camera -> why it has no pictures."""
        return {
            name: f"{self._dataset.video_path(self.index, name)} does not exist"
            for name in self.cameras
            if not self._dataset.has_video(self.index, name)
        }

    def frames(self, stride: int = 1) -> Iterator[InternFrame]:
        """Every `stride`-th frame; videos are decoded along the way, never as a whole.

        Raises:
            DatasetError: a video ends early, or an annotation is damaged; names the file.
        """
        missing = self.missing()
        videos = {
            name: self._dataset.stream(self.index, name)
            for name in self.cameras
            if name not in missing
        }
        keypoints = {name: self.keypoints(name) for name in self.cameras}
        for row in range(len(self)):
            pictures = {name: next(video) for name, video in videos.items()}
            if row % stride == 0:
                images = {name: pictures.get(name) for name in self.cameras}
                points = {name: keypoints[name][row] for name in self.cameras}
                yield self._frame(row, images, missing, points)
        for video in videos.values():
            next(video, None)  # which complains of frames beyond the episode's end

    def ground(self, row: int, camera: str) -> GroundingFrame:
        """What is known about one picture, to ask about it (`data.grounding.conversation`).

        Its objects are the two of the task, its points the middles of their boxes.

        Raises:
            DatasetError: the instruction does not name the two objects in a known way.
        """
        if self.names is None:
            raise DatasetError(
                f"episode {self.index}: {self.instruction!r} does not say what is moved and where "
                "in a way that is known"
            )
        seen = self.boxes(camera, row)
        unseen = np.full(4, np.nan)
        boxes = np.stack([seen.get(uid, unseen) for uid in (self.pick_uid, self.place_uid)])
        pick, place = self.names
        pick_point, place_point = (boxes[:, :2] + boxes[:, 2:]) / 2
        return GroundingFrame(
            *self._dataset.size(camera),
            instruction=self.instruction.rstrip(". "),
            pick=pick,
            place=place,
            relation="on",
            objects=(pick, place),
            boxes=boxes,
            pick_point=pick_point,
            place_point=place_point,
            trace=future_waypoints(self.tip(camera)[row:], TRACE_WAYPOINTS)[0],
        )

    def _frame(
        self,
        row: int,
        images: Mapping[str, NDArray[np.uint8] | None],
        missing: Mapping[str, str],
        keypoints: Mapping[str, NDArray[np.float64]],
    ) -> InternFrame:
        columns = self.recorded.columns
        return InternFrame(
            index=row,
            time=float(columns["timestamp"][row]),
            images=images,
            missing=missing,
            subtask=self.subtask(row),
            boxes={camera: self.boxes(camera, row) for camera in self.cameras},
            keypoints=keypoints,
            numbers={
                name: np.asarray(values[row], np.float64)
                for name, values in columns.items()
                if name.startswith(("state.", "action."))
            },
        )

    def _stacked(self, name: str) -> NDArray[np.float64]:
        return np.stack([self.annotation(name, row) for row in range(len(self))])

    def _rotation(self, owner: str) -> Rotation:
        return Rotation.from_quat(
            self.recorded.column(f"{owner}.eef_quaternion"), scalar_first=True
        )


class InternDataset:
    """A folder of InternData-M1; metadata is read at once, episodes when asked for.

    Attributes:
        stored: the LeRobot dataset that it is.
        cameras: camera names.

    Raises:
        DatasetError: it is no LeRobot v2.1 dataset, or has none of InternData's annotations.
    """

    def __init__(self, root: str | Path) -> None:
        self.stored = LeRobotDataset(root)
        self.cameras = tuple(self.stored.cameras)
        if "annotation.pick_obj_uid" not in self.stored.features:
            raise DatasetError(f"{root} has no InternData annotations (annotation.pick_obj_uid)")

    def __len__(self) -> int:
        return len(self.stored)

    def __iter__(self) -> Iterator[InternEpisode]:
        return (self.episode(index) for index in range(len(self)))

    def episode(self, index: int) -> InternEpisode:
        """One episode with its columns.

        Raises:
            DatasetError: no such episode, or its file is missing or damaged.
        """
        return InternEpisode(self.stored, self.stored.episode(index))
