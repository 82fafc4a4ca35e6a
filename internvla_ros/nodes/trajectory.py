"""Following a joint trajectory as a joint_trajectory_controller does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


class TrajectoryError(ValueError):
    """A trajectory that cannot be followed."""


@dataclass(frozen=True)
class Waypoint:
    """A point of a trajectory: time (s, absolute), positions [n], velocities [n] or None."""

    time: float
    positions: Array
    velocities: Array | None


class TrajectoryFollower:
    """Interpolates the newest trajectory, starting from where the last one has led.

    Between two points with velocities the path is cubic, otherwise straight; after the last
    point its position is held. A new trajectory replaces the old one at once.
    """

    def __init__(self, names: Sequence[str], start: Array) -> None:
        """`names`: n joints in the order of all arrays; `start`: [n] their positions."""
        self._names = list(names)
        self.reset(start)

    def reset(self, positions: Array) -> None:
        """Forget the trajectory and hold `positions` [n]."""
        self._points = [Waypoint(float("-inf"), np.array(positions, dtype=np.float64), None)]

    def follow(
        self,
        now: float,
        stamp: float,
        names: Sequence[str],
        points: Sequence[tuple[float, Sequence[float], Sequence[float]]],
    ) -> None:
        """Replace the trajectory.

        Args:
            now: s.
            stamp: s, when the trajectory starts; 0: now.
            names: its joints, in any order; all of ours must be there.
            points: (time from start in s, positions, velocities or an empty sequence) each.
        Raises:
            TrajectoryError: a joint is missing, sizes differ, numbers are not finite, or times do
                not increase.
        """
        missing = [name for name in self._names if name not in names]
        if missing:
            raise TrajectoryError(f"trajectory lacks joints {', '.join(missing)}")
        if not points:
            raise TrajectoryError("trajectory has no points")
        order = [list(names).index(name) for name in self._names]
        start = now if stamp == 0.0 else stamp
        way = [_waypoint(start, point, order, len(names)) for point in points]
        times = [point.time for point in way]
        if any(later <= earlier for earlier, later in pairwise(times)):
            raise TrajectoryError("times of a trajectory must increase from point to point")
        position, velocity = self.sample(now)
        ahead = [point for point in way if point.time > now]
        self._points = [Waypoint(now, position, velocity), *ahead] if ahead else [way[-1]]

    def sample(self, now: float) -> tuple[Array, Array]:
        """Positions [n] and velocities [n] at `now` (s)."""
        points = self._points
        if now >= points[-1].time or len(points) == 1:
            return points[-1].positions.copy(), np.zeros(len(self._names))
        index = next(i for i, point in enumerate(points) if point.time > now)
        if index == 0:
            return points[0].positions.copy(), np.zeros(len(self._names))
        return _between(points[index - 1], points[index], now)


def _waypoint(
    start: float,
    point: tuple[float, Sequence[float], Sequence[float]],
    order: list[int],
    count: int,
) -> Waypoint:
    """One point with its joints in our order."""
    offset, positions, velocities = point
    if len(positions) != count or len(velocities) not in (0, count):
        raise TrajectoryError(
            f"trajectory of {count} joints has a point of {len(positions)} positions and "
            f"{len(velocities)} velocities"
        )
    at = np.array([positions[i] for i in order], dtype=np.float64)
    speed = np.array([velocities[i] for i in order], dtype=np.float64) if len(velocities) else None
    if not np.isfinite(at).all() or (speed is not None and not np.isfinite(speed).all()):
        raise TrajectoryError("trajectory has a number that is not finite")
    return Waypoint(start + offset, at, speed)


def _between(a: Waypoint, b: Waypoint, now: float) -> tuple[Array, Array]:
    """Positions and velocities between two points: cubic Hermite, or straight."""
    span = b.time - a.time
    s = (now - a.time) / span
    step = b.positions - a.positions
    if a.velocities is None or b.velocities is None:
        return a.positions + s * step, step / span
    va, vb = a.velocities * span, b.velocities * span
    s2, s3 = s * s, s * s * s
    position = (
        a.positions
        + (s3 - 2 * s2 + s) * va
        + (3 * s2 - 2 * s3) * step
        + (s3 - s2) * vb
    )
    velocity = ((3 * s2 - 4 * s + 1) * va + 6 * (s - s2) * step + (3 * s2 - 2 * s) * vb) / span
    return position, velocity
