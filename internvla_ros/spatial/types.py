"""Where to act, as values: all coordinates are pixels of one image, u right and v down."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Box:
    """An axis-aligned box, x1 <= x2 and y1 <= y2, of something with a name.

    `score` is in 0..1; 1 where the model states none.
    """

    x1: float
    y1: float
    x2: float
    y2: float
    label: str = ""
    score: float = 1.0

    @property
    def centre(self) -> tuple[float, float]:
        """(x, y) of the middle."""
        return (self.x1 + self.x2) / 2, (self.y1 + self.y2) / 2

    @property
    def area(self) -> float:
        """Square pixels."""
        return (self.x2 - self.x1) * (self.y2 - self.y1)

    def scaled(self, sx: float, sy: float) -> Box:
        """The same box in an image sx times as wide and sy times as high."""
        return Box(self.x1 * sx, self.y1 * sy, self.x2 * sx, self.y2 * sy, self.label, self.score)

    def iou(self, other: Box) -> float:
        """Intersection over union, 0..1."""
        width = min(self.x2, other.x2) - max(self.x1, other.x1)
        height = min(self.y2, other.y2) - max(self.y1, other.y1)
        if width <= 0 or height <= 0:
            return 0.0
        intersection = width * height
        return intersection / (self.area + other.area - intersection)


@dataclass(frozen=True)
class Point:
    """A pixel position, with a name where it has one."""

    x: float
    y: float
    label: str = ""

    def scaled(self, sx: float, sy: float) -> Point:
        """The same point in an image sx times as wide and sy times as high."""
        return Point(self.x * sx, self.y * sy, self.label)


@dataclass(frozen=True, eq=False)
class Trace:
    """A path through the image: `points` is float[N, 2], N >= 2, first to last."""

    points: NDArray[np.float64]
    label: str = ""

    def __post_init__(self) -> None:
        points = np.asarray(self.points, np.float64)
        if points.ndim != 2 or points.shape[1] != 2 or len(points) < 2:
            raise ValueError(f"Trace.points must have shape [N >= 2, 2], not {list(points.shape)}")
        object.__setattr__(self, "points", points)

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Trace)
            and self.label == other.label
            and np.array_equal(self.points, other.points)
        )

    def __hash__(self) -> int:
        return hash((self.label, self.points.tobytes()))

    def scaled(self, sx: float, sy: float) -> Trace:
        """The same trace in an image sx times as wide and sy times as high."""
        return Trace(self.points * [sx, sy], self.label)


@dataclass(frozen=True)
class SpatialAnswer:
    """What a text says about places in an image.

    Attributes:
        boxes, points, traces: in the order of the text.
        text: the text as it was decoded.
        problems: what could not be read or had to be mended, in words; empty for a clean answer.
        subtask: the next step, where the text names one.
    """

    boxes: tuple[Box, ...] = ()
    points: tuple[Point, ...] = ()
    traces: tuple[Trace, ...] = ()
    text: str = ""
    problems: tuple[str, ...] = ()
    subtask: str = ""

    def scaled(self, sx: float, sy: float) -> SpatialAnswer:
        """The same answer in an image sx times as wide and sy times as high (text unchanged)."""
        return SpatialAnswer(
            boxes=tuple(box.scaled(sx, sy) for box in self.boxes),
            points=tuple(point.scaled(sx, sy) for point in self.points),
            traces=tuple(trace.scaled(sx, sy) for trace in self.traces),
            text=self.text,
            problems=self.problems,
            subtask=self.subtask,
        )


@dataclass(frozen=True)
class Turn:
    """One question about an image and its answer."""

    question: str
    answer: str
