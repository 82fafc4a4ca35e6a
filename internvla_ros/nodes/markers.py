"""Where to act and how, as markers in the robot's base frame."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from builtin_interfaces.msg import Duration
from geometry_msgs.msg import Point
from numpy.typing import NDArray
from std_msgs.msg import ColorRGBA
from visualization_msgs.msg import Marker

from internvla_ros.motion.se3 import Pose
from internvla_ros.msg import ExecutionState
from internvla_ros.spatial.draw import AMBER, CYAN, LIME, MAGENTA, PALETTE, PAPER, Colour
from internvla_ros.spatial.types import Box, SpatialAnswer, Trace
from internvla_ros.spatial.types import Point as Pixel

Array = NDArray[np.float64]

CLOSED: Colour = MAGENTA
OPEN: Colour = LIME
_RED: Colour = (235, 64, 52)
_GREY: Colour = (170, 174, 180)
_RAY = 1.5  # m, length of a ray that meets nothing
_LIFT = np.array([0.0, 0.0, 0.002])  # m above the table, so that lines do not drown in it
_LABEL = np.array([0.0, 0.0, 0.02])  # m, labels above their boxes

STATES: dict[int, tuple[str, Colour]] = {
    ExecutionState.IDLE: ("idle", _GREY),
    ExecutionState.RUNNING: ("running", LIME),
    ExecutionState.HOLDING: ("holding", AMBER),
    ExecutionState.STOPPED: ("STOPPED", _RED),
    ExecutionState.FAULT: ("FAULT", _RED),
}


@dataclass(frozen=True, eq=False)
class Lifted:
    """A prediction in space: all in m, base frame; NaN where a pixel has no place.

    Attributes:
        eye: [3] the camera.
        points: [N, 3], one a point of the answer; `directions` [N, 3] of their rays.
        traces: [K, 3] each, one a trace of the answer.
        boxes: [4, 3] each, the corners of the boxes of the answer.
    """

    eye: Array
    points: Array
    directions: Array
    traces: tuple[Array, ...]
    boxes: tuple[Array, ...]


class MarkerMaker:
    """Makes markers with one header's frame and one lifetime (s)."""

    def __init__(self, frame: str, lifetime: float) -> None:
        self._frame = frame
        self._lifetime = Duration(sec=int(lifetime), nanosec=int(lifetime % 1.0 * 1e9))

    def workspace(self, lower: Array, upper: Array) -> Marker:
        """The edges of the box that the tip may move in."""
        corners = np.array(
            [[(lower, upper)[i >> axis & 1][axis] for axis in range(3)] for i in range(8)]
        )
        edges = [(i, i | 1 << axis) for i in range(8) for axis in range(3) if not i >> axis & 1]
        ends = corners[[index for edge in edges for index in edge]]
        return self._line("workspace", 0, Marker.LINE_LIST, ends, 0.002, PAPER, 0.35)

    def state(self, state: ExecutionState, at: Array) -> Marker:
        """What the arm does and why, as text at a place [3]."""
        word, colour = STATES.get(state.state, (f"state {state.state}", _RED))
        text = f"{word}: {state.reason}" if state.reason else word
        return self._text("state", 0, at, text, 0.035, colour)

    def prediction(self, answer: SpatialAnswer, lifted: Lifted) -> list[Marker]:
        """Rays, points, boxes and traces of an answer that has been lifted."""
        return [
            *self._boxes(answer.boxes, lifted.boxes),
            *self._points(answer.points, lifted),
            *self._traces(answer.traces, lifted.traces),
        ]

    def chunk(self, poses: Sequence[Pose], grippers: Array) -> list[Marker]:
        """The path of a chunk, T + 1 poses; each step in the colour of its gripper target [T]."""
        places = np.array([pose.position for pose in poses])
        colours = [_colour(_between(CLOSED, OPEN, value)) for value in grippers]
        colours = [colours[0], *colours]
        line = self._line("chunk", 0, Marker.LINE_STRIP, places, 0.006, PAPER, 1.0)
        line.colors = colours
        steps = self._line("chunk", 1, Marker.SPHERE_LIST, places, 0.009, PAPER, 1.0)
        steps.scale.y = steps.scale.z = steps.scale.x
        steps.colors = colours
        return [line, steps]

    def _boxes(self, boxes: Iterable[Box], lifted: Iterable[Array]) -> list[Marker]:
        found = []
        for index, (box, corners) in enumerate(zip(boxes, lifted, strict=True)):
            if np.isnan(corners).any():
                continue
            colour = PALETTE[index % len(PALETTE)]
            loop = corners[[0, 1, 2, 3, 0]] + _LIFT
            found.append(self._line("boxes", index, Marker.LINE_STRIP, loop, 0.003, colour, 0.9))
            if box.label:
                at = corners[:2].mean(axis=0) + _LABEL
                found.append(self._text("labels", index, at, box.label, 0.02, colour))
        return found

    def _points(self, points: Iterable[Pixel], lifted: Lifted) -> list[Marker]:
        found = []
        for index, _ in enumerate(points):
            colour = (AMBER, CYAN)[index] if index < 2 else PALETTE[index % len(PALETTE)]
            place, known = lifted.points[index], bool(np.isfinite(lifted.points[index]).all())
            end = place if known else lifted.eye + _RAY * lifted.directions[index]
            if np.isnan(end).any():
                continue
            ray = np.stack([lifted.eye, end])
            found.append(self._line("rays", index, Marker.LINE_LIST, ray, 0.0015, colour, 0.3))
            if known:
                found.append(self._sphere("points", index, place, 0.018, colour))
        return found

    def _traces(self, traces: Iterable[Trace], lifted: Iterable[Array]) -> list[Marker]:
        found = []
        for index, (_, places) in enumerate(zip(traces, lifted, strict=True)):
            if np.isnan(places).any():
                continue
            above = places + _LIFT
            line = self._line("traces", index, Marker.LINE_STRIP, above, 0.004, MAGENTA, 1.0)
            shares = np.linspace(0.0, 1.0, len(places))
            line.colors = [_colour(_between(PAPER, MAGENTA, share)) for share in shares]
            found.append(line)
        return found

    def _line(
        self,
        namespace: str,
        number: int,
        kind: int,
        places: Array,
        width: float,
        colour: Colour,
        opacity: float,
    ) -> Marker:
        marker = self._marker(namespace, number, kind, colour, opacity)
        marker.scale.x = width
        marker.points = [Point(x=x, y=y, z=z) for x, y, z in places.tolist()]
        return marker

    def _sphere(
        self, namespace: str, number: int, at: Array, size: float, colour: Colour
    ) -> Marker:
        marker = self._marker(namespace, number, Marker.SPHERE, colour, 0.95)
        marker.scale.x = marker.scale.y = marker.scale.z = size
        _place(marker, at)
        return marker

    def _text(
        self, namespace: str, number: int, at: Array, text: str, height: float, colour: Colour
    ) -> Marker:
        marker = self._marker(namespace, number, Marker.TEXT_VIEW_FACING, colour, 1.0)
        marker.scale.z = height
        marker.text = text
        _place(marker, at)
        return marker

    def _marker(
        self, namespace: str, number: int, kind: int, colour: Colour, opacity: float
    ) -> Marker:
        """Stamp zero: shown in the frame as it is now."""
        marker = Marker(
            ns=namespace,
            id=number,
            type=kind,
            action=Marker.ADD,
            color=_colour(colour, opacity),
            lifetime=self._lifetime,
        )
        marker.header.frame_id = self._frame
        marker.pose.orientation.w = 1.0
        return marker


def _place(marker: Marker, at: Array) -> None:
    position = marker.pose.position
    position.x, position.y, position.z = (float(value) for value in at)


def _colour(colour: Colour, opacity: float = 1.0) -> ColorRGBA:
    red, green, blue = (value / 255 for value in colour)
    return ColorRGBA(r=red, g=green, b=blue, a=opacity)


def _between(start: Colour, end: Colour, share: float) -> Colour:
    share = min(max(float(share), 0.0), 1.0)
    mixed = [round(a + (b - a) * share) for a, b in zip(start, end, strict=True)]
    return mixed[0], mixed[1], mixed[2]
