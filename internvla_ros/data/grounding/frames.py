"""Questions and answers about annotated frames: the grounding data.

A `GroundingFrame` holds where things are in an image of a certain size; `conversation` asks about
them in the pixels of the image that the model will see. Coordinates are scaled before they are
rounded, so nothing is lost on the way from the stored to the seen size.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from internvla_ros.data.episode import EpisodeError, Frame
from internvla_ros.data.lerobot import LeRobotDataset, RecordedEpisode
from internvla_ros.spatial.prompts import (
    point_prompt,
    refer_prompt,
    region_prompt,
    spatial_prompt,
    trace_prompt,
)
from internvla_ros.spatial.text import format_boxes, format_points, format_trace
from internvla_ros.spatial.types import Box, Point, Trace, Turn

MIN_SIDE = 2.0
"""A box of less than this many pixels in the seen image, either way, is not asked about."""
MIN_VISIBLE = 0.3
"""Less than this share of a box left in the image counts as not seen."""


@dataclass(frozen=True, eq=False)
class GroundingFrame:
    """What is known about one image.

    Attributes:
        width, height: the image whose pixels everything is in.
        instruction, pick, place, relation: the task; pick and place are among `objects`.
        objects: N names.
        boxes: float[N, 4]; NaN where an object is not seen.
        pick_point, place_point: float[2].
        trace: float[M, 2], the path still ahead of the gripper; None where it is not known.
    """

    width: float
    height: float
    instruction: str
    pick: str
    place: str
    relation: str
    objects: tuple[str, ...]
    boxes: NDArray[np.floating]
    pick_point: NDArray[np.floating]
    place_point: NDArray[np.floating]
    trace: NDArray[np.floating] | None = None

    @classmethod
    def from_frame(cls, frame: Frame) -> GroundingFrame:
        """Of a snapshot, which has no trace."""
        height, width = frame.front.shape[:2]
        return cls(
            width,
            height,
            frame.instruction,
            frame.pick,
            frame.place,
            frame.relation,
            frame.objects,
            frame.boxes,
            frame.pick_point,
            frame.place_point,
        )

    @classmethod
    def from_episode(
        cls, episode: RecordedEpisode, row: int, size: tuple[int, int]
    ) -> GroundingFrame:
        """Of frame `row` of a stored episode; `size` is the stored (width, height) of "front"."""
        return cls(
            *size,
            episode.instruction,
            episode.field("pick"),
            episode.field("place"),
            episode.field("relation"),
            tuple(episode.field("objects")),
            episode.boxes[row],
            episode.column("annotation.point.pick")[row],
            episode.column("annotation.point.place")[row],
            episode.trace[row],
        )

    def mapped(
        self, sx: float, sy: float, dx: float, dy: float, width: float, height: float
    ) -> GroundingFrame:
        """The same in an image where pixel (u, v) went to (sx u + dx, sy v + dy).

        Boxes are clipped to the new width and height; one that is mostly gone becomes NaN.
        """
        scale, shift = np.array([sx, sy]), np.array([dx, dy])
        return replace(
            self,
            width=width,
            height=height,
            boxes=_clipped(self.boxes * np.tile(scale, 2) + np.tile(shift, 2), width, height),
            pick_point=self.pick_point * scale + shift,
            place_point=self.place_point * scale + shift,
            trace=None if self.trace is None else self.trace * scale + shift,
        )

    def resized(self, width: float, height: float) -> GroundingFrame:
        """The same in an image of another size."""
        return self.mapped(width / self.width, height / self.height, 0, 0, width, height)

    def with_task(self, instruction: str, pick: str, place: str, relation: str) -> GroundingFrame:
        """The same scene under another instruction; its trace is unknown.

        Points of objects that were not the task's before are box middles, which for hollow things
        are not their centres: `Centres.with_task` knows better.

        Raises:
            EpisodeError: pick or place is not one of the objects.
        """
        return replace(
            self,
            instruction=instruction,
            pick=pick,
            place=place,
            relation=relation,
            pick_point=self.pick_point if pick == self.pick else _centre(self.box(pick)),
            place_point=self.place_point if place == self.place else _centre(self.box(place)),
            trace=None,
        )

    def box(self, name: str) -> NDArray[np.floating]:
        """float[4], NaN if the object is not seen."""
        if name not in self.objects:
            raise EpisodeError(f"{name!r} is not in the frame, only {', '.join(self.objects)}")
        return self.boxes[self.objects.index(name)]

    def visible(self) -> list[Box]:
        """The boxes of the objects that are seen, in the order of `objects`."""
        return [
            Box(x1, y1, x2, y2, name)
            for name, (x1, y1, x2, y2) in zip(self.objects, self.boxes.tolist(), strict=True)
            if x2 - x1 >= MIN_SIDE and y2 - y1 >= MIN_SIDE
        ]


def conversation(
    frame: GroundingFrame,
    rng: np.random.Generator,
    width: float,
    height: float,
    refer: int = 2,
    region: int = 1,
) -> list[Turn]:
    """Questions about a frame, in random order, in pixels of a width x height image.

    Asked are: the task's boxes (to move first, then the receptacle), its two points, its trace, the
    boxes of `refer` named objects, and the names of the objects in `region` boxes; each as far as
    it can be seen and is known.
    """
    seen = frame.resized(width, height)
    boxes = {box.label: box for box in seen.visible()}
    names = list(boxes)
    turns = _task_turns(seen, boxes)
    turns += [
        Turn(refer_prompt(names[index]), format_boxes([boxes[names[index]]]))
        for index in rng.permutation(len(names))[:refer]
    ]
    turns += [
        Turn(region_prompt(boxes[names[index]]), names[index])
        for index in rng.permutation(len(names))[:region]
    ]
    return [turns[index] for index in rng.permutation(len(turns))]


def _task_turns(frame: GroundingFrame, boxes: dict[str, Box]) -> list[Turn]:
    """The questions about the task that this frame can answer."""
    turns = []
    if frame.pick in boxes and frame.place in boxes:
        answer = format_boxes([boxes[frame.pick], boxes[frame.place]])
        turns.append(Turn(spatial_prompt(frame.instruction), answer))
    points = np.stack([frame.pick_point, frame.place_point])
    if ((points >= 0) & (points <= [frame.width, frame.height])).all():
        answer = format_points([Point(float(x), float(y)) for x, y in points])
        turns.append(Turn(point_prompt(frame.instruction), answer))
    if frame.trace is not None and np.isfinite(frame.trace).all():
        waypoints = np.clip(frame.trace, 0, [frame.width, frame.height])
        turns.append(Turn(trace_prompt(frame.instruction), format_trace(Trace(waypoints))))
    return turns


def episode_frames(
    dataset: LeRobotDataset, episodes: Iterable[int], stride: int = 1
) -> Iterator[tuple[NDArray[np.uint8], GroundingFrame]]:
    """Every `stride`-th front image of these episodes, at its stored size, with what is known."""
    size = dataset.size("front")
    for index in episodes:
        recorded = dataset.episode(index)
        images = dataset.frames(index, "front")
        for row in range(0, len(recorded), stride):
            yield images[row], GroundingFrame.from_episode(recorded, row, size)


def _clipped(boxes: NDArray[np.floating], width: float, height: float) -> NDArray[np.float64]:
    """Boxes [N, 4] cut to the image; those of which too little is left become NaN."""
    limit = np.array([width, height, width, height], float)
    cut = np.clip(boxes, 0.0, limit)
    gone = _areas(cut) < MIN_VISIBLE * _areas(boxes)
    cut[gone] = np.nan
    return cut


def _areas(boxes: NDArray[np.floating]) -> NDArray[np.floating]:
    return np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)


def _centre(box: NDArray[np.floating]) -> NDArray[np.floating]:
    return (box[:2] + box[2:]) / 2
