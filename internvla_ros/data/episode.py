"""What the data engine records: whole episodes and single annotated frames.

Pixels of boxes, points and tips are those of the ``front`` image at its stored size: u right, v
down, pixel centres at +0.5, boxes ``x1 y1 x2 y2``. A point that is outside the picture keeps its
projected coordinates; an object that is not seen at all has a box of NaN.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

STATE_DIM = 10
ACTION_DIM = 7
RELATIONS = (
    "on",
    "in",
    "stacked",
    "next_to",
    "left_of",
    "right_of",
    "between",
    "aligned",
    "open",
    "closed",
)
"""What may hold of the object to move and where it goes; of a drawer, that it is open or closed."""


class EpisodeError(ValueError):
    """An episode or a frame whose arrays do not fit together."""


def _check_array(
    owner: str, name: str, array: NDArray[np.generic], shape: tuple[int | None, ...], kind: str
) -> None:
    """Raise EpisodeError unless `array` has this shape (None = any) and kind ("f" or "u1")."""
    if not isinstance(array, np.ndarray):
        raise EpisodeError(f"{owner}.{name} must be a numpy array, not {type(array).__name__}")
    wanted = ", ".join("any" if size is None else str(size) for size in shape)
    fits = array.ndim == len(shape) and all(
        expected is None or size == expected
        for size, expected in zip(array.shape, shape, strict=True)
    )
    if not fits:
        raise EpisodeError(f"{owner}.{name} must have shape [{wanted}], not {list(array.shape)}")
    if kind == "u1" and array.dtype != np.uint8:
        raise EpisodeError(f"{owner}.{name} must be uint8, not {array.dtype}")
    if kind == "f" and array.dtype.kind != "f":
        raise EpisodeError(f"{owner}.{name} must be floating point, not {array.dtype}")


def _check_task(
    owner: str, instruction: str, pick: str, place: str, relation: str, objects: tuple[str, ...]
) -> None:
    """Raise EpisodeError unless the task's names are among the (distinct) objects."""
    if not instruction.strip():
        raise EpisodeError(f"{owner}.instruction is empty")
    if len(set(objects)) != len(objects):
        raise EpisodeError(f"{owner}.objects has a name twice: {', '.join(objects)}")
    for role, name in (("pick", pick), ("place", place)):
        if name not in objects:
            raise EpisodeError(
                f"{owner}.{role} is {name!r}, which is not one of its objects: {', '.join(objects)}"
            )
    if relation not in RELATIONS:
        raise EpisodeError(
            f"{owner}.relation must be one of {', '.join(RELATIONS)}, not {relation!r}"
        )


@dataclass(frozen=True)
class Frame:
    """One annotated moment: what the cameras and the arm report, and where things are.

    Attributes:
        front: uint8[h, w, 3], RGB; all pixels below are pixels of it.
        wrist: uint8[h, w, 3], RGB.
        state: float[10]: tip x y z (m, base frame), first two columns of its rotation
            (r00 r10 r20 r01 r11 r21), gripper opening 0 closed .. 1 open.
        boxes: float[N, 4], a box for each name of `objects`.
        pick_point: float[2], centre of the object to move.
        place_point: float[2], where it is to go.
        tip_pixel: float[2], the gripper's tip.
        objects: N names such as "red cube".
        instruction: the task in words.
        pick, place: the names, among `objects`, of the object to move and its receptacle.
        relation: one of `RELATIONS`.
        holding: the gripper holds the object to move.
    """

    front: NDArray[np.uint8]
    wrist: NDArray[np.uint8]
    state: NDArray[np.floating]
    boxes: NDArray[np.floating]
    pick_point: NDArray[np.floating]
    place_point: NDArray[np.floating]
    tip_pixel: NDArray[np.floating]
    objects: tuple[str, ...]
    instruction: str
    pick: str
    place: str
    relation: str
    holding: bool

    def __post_init__(self) -> None:
        object.__setattr__(self, "objects", tuple(self.objects))
        _check_task("Frame", self.instruction, self.pick, self.place, self.relation, self.objects)
        _check_array("Frame", "front", self.front, (None, None, 3), "u1")
        _check_array("Frame", "wrist", self.wrist, (None, None, 3), "u1")
        _check_array("Frame", "state", self.state, (STATE_DIM,), "f")
        _check_array("Frame", "boxes", self.boxes, (len(self.objects), 4), "f")
        for name in ("pick_point", "place_point", "tip_pixel"):
            _check_array("Frame", name, getattr(self, name), (2,), "f")


@dataclass(frozen=True)
class Episode:
    """One recorded episode of T >= 1 frames, arrays stacked over frames.

    Attributes:
        images: camera name -> uint8[T, h, w, 3], RGB; one size per camera. "front" is required.
        state: float[T, 10], as in Frame.
        action: float[T, 7]: dx dy dz (m), droll dpitch dyaw (rad), gripper target 0 or 1; base
            frame; row t leads from the commanded pose at frame t to that at frame t + 1.
        boxes: float[T, N, 4], one for each name of `objects`, pixels of the front image.
        pick_point, place_point, tip_pixel: float[T, 2], pixels of the front image.
        timestamps: float[T], seconds from the episode's start, strictly increasing.
        instruction, pick, place, relation, objects: the task, as in Frame.
        seed: what the scene was drawn from.
        success: the task was achieved at the end.
    """

    images: Mapping[str, NDArray[np.uint8]]
    state: NDArray[np.floating]
    action: NDArray[np.floating]
    boxes: NDArray[np.floating]
    pick_point: NDArray[np.floating]
    place_point: NDArray[np.floating]
    tip_pixel: NDArray[np.floating]
    timestamps: NDArray[np.floating]
    instruction: str
    pick: str
    place: str
    relation: str
    objects: tuple[str, ...]
    seed: int
    success: bool

    def __post_init__(self) -> None:
        object.__setattr__(self, "objects", tuple(self.objects))
        _check_task("Episode", self.instruction, self.pick, self.place, self.relation, self.objects)
        _check_array("Episode", "state", self.state, (None, STATE_DIM), "f")
        frames = len(self.state)
        if frames == 0:
            raise EpisodeError("Episode.state has no frames: record at least one")
        if "front" not in self.images:
            raise EpisodeError(
                f"Episode.images has no camera 'front', only: {', '.join(self.images) or 'none'}"
            )
        for camera, images in self.images.items():
            _check_array("Episode", f"images[{camera!r}]", images, (frames, None, None, 3), "u1")
        _check_array("Episode", "action", self.action, (frames, ACTION_DIM), "f")
        _check_array("Episode", "boxes", self.boxes, (frames, len(self.objects), 4), "f")
        for name in ("pick_point", "place_point", "tip_pixel"):
            _check_array("Episode", name, getattr(self, name), (frames, 2), "f")
        self._check_numbers(frames)

    def _check_numbers(self, frames: int) -> None:
        """Raise EpisodeError for values that no arm or clock produces."""
        for name in ("state", "action"):
            bad = ~np.isfinite(getattr(self, name)).all(axis=1)
            if bad.any():
                raise EpisodeError(f"Episode.{name} is not finite at frame {int(np.argmax(bad))}")
        _check_array("Episode", "timestamps", self.timestamps, (frames,), "f")
        if not (np.diff(self.timestamps) > 0).all():
            raise EpisodeError("Episode.timestamps must increase strictly")

    def __len__(self) -> int:
        return len(self.state)
