"""Where an object's centre appears within its box, learned for each kind of object.

A task's points are projected centres of objects, and these are not the centres of their boxes: a
bowl's centre lies at its bottom. Annotated frames know the centres of their task's two objects
alone; from those the centres of all the others follow, since all objects of a kind look alike.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from internvla_ros.data.grounding.frames import GroundingFrame

MIN_SAMPLES = 20
"""Kinds seen less often than this have their centre in the middle of the box."""


@dataclass(frozen=True, eq=False)
class Centres:
    """For each kind (the last word of a name) how box middles are corrected.

    Attributes:
        corrections: kind -> float[5, 2], applied to (1, middle, size) of a box in shares of the
            image; the result, in shares of the box, is added to the middle.
    """

    corrections: Mapping[str, NDArray[np.float64]]

    @classmethod
    def fit(cls, frames: Iterable[GroundingFrame]) -> Centres:
        """Least squares over the picked and the receiving object of every frame."""
        seen: dict[str, list[tuple[NDArray[np.float64], NDArray[np.float64]]]] = defaultdict(list)
        for frame in frames:
            for name, point in ((frame.pick, frame.pick_point), (frame.place, frame.place_point)):
                box = frame.box(name)
                size = box[2:] - box[:2]
                if np.isfinite(box).all() and (size > 0).all() and _whole(box, frame):
                    offset = (point - (box[:2] + box[2:]) / 2) / size
                    seen[_kind(name)].append((_features(box, frame), offset))
        fitted = {}
        for kind, samples in seen.items():
            if len(samples) >= MIN_SAMPLES:
                features, offsets = (np.stack(rows) for rows in zip(*samples, strict=True))
                fitted[kind] = np.linalg.lstsq(features, offsets, rcond=None)[0]
        return cls(fitted)

    def point(self, frame: GroundingFrame, name: str) -> NDArray[np.float64]:
        """float[2], pixels: an object's centre, NaN if the object is not seen."""
        box = np.asarray(frame.box(name), np.float64)
        middle, size = (box[:2] + box[2:]) / 2, box[2:] - box[:2]
        correction = self.corrections.get(_kind(name))
        if correction is None:
            return middle
        return middle + np.clip(_features(box, frame) @ correction, -0.5, 0.5) * size

    def with_task(
        self, frame: GroundingFrame, instruction: str, pick: str, place: str, relation: str
    ) -> GroundingFrame:
        """`GroundingFrame.with_task`, with points at the objects' centres as learned."""
        changed = frame.with_task(instruction, pick, place, relation)
        return replace(
            changed,
            pick_point=frame.pick_point if pick == frame.pick else self.point(frame, pick),
            place_point=frame.place_point if place == frame.place else self.point(frame, place),
        )


def _kind(name: str) -> str:
    return name.split()[-1]


def _features(box: NDArray[np.floating], frame: GroundingFrame) -> NDArray[np.float64]:
    scale = np.array([frame.width, frame.height])
    return np.concatenate([[1.0], (box[:2] + box[2:]) / 2 / scale, (box[2:] - box[:2]) / scale])


def _whole(box: NDArray[np.floating], frame: GroundingFrame) -> bool:
    """The box does not end at the image's edge."""
    inside = (box[:2] > 0.5).all() and (box[2:] < [frame.width - 0.5, frame.height - 0.5]).all()
    return bool(inside)
