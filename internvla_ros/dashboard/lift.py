"""From a prediction's pixels to places in the robot's base frame, for the eye."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from internvla_ros.spatial.projection import View
from internvla_ros.spatial.types import Point, Trace


def lift_points(view: View, points: tuple[Point, ...], height: float) -> NDArray[np.float64]:
    """[N, 3] where points lie on the plane z = height (m); NaN where that is nowhere."""
    return view.on_plane(np.array([(point.x, point.y) for point in points]), height)


def lift_trace(
    view: View, trace: Trace, start_height: float, end_height: float
) -> NDArray[np.float64]:
    """[N, 3] a trace in space; NaN where a waypoint is nowhere.

    A picture does not say how high the tip will be. The heights (m) drawn fall or rise evenly along
    the trace: seen from the camera it is exact, from elsewhere a guess.
    """
    steps = np.linalg.norm(np.diff(trace.points, axis=0), axis=1)
    way = np.concatenate([[0.0], np.cumsum(steps)])
    share = way / way[-1] if way[-1] > 0.0 else np.zeros(len(way))
    heights = start_height + share * (end_height - start_height)
    places = [
        view.on_plane(pixel[None], float(height))
        for pixel, height in zip(trace.points, heights, strict=True)
    ]
    return np.concatenate(places)
