"""Following a joint trajectory as a joint_trajectory_controller does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import perm

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Point = tuple[float, Sequence[float], *tuple[Sequence[float], ...]]
"""s from the trajectory's start, then positions, velocities and accelerations."""


class TrajectoryError(ValueError):
    """A trajectory that cannot be followed."""


@dataclass(frozen=True)
class Waypoint:
    """A point of a trajectory: time (s, absolute), positions [n]; velocities [n] and
    accelerations [n], or None."""

    time: float
    positions: Array
    velocities: Array | None
    accelerations: Array | None


class TrajectoryFollower:
    """Interpolates the newest trajectory, starting from where the last one has led.

    Between two points with velocities and accelerations the path is quintic, with velocities alone
    cubic, otherwise straight; after the last point its position is held. A new trajectory replaces
    the old one at once.
    """

    def __init__(self, names: Sequence[str], start: Array) -> None:
        """`names`: n joints in the order of all arrays; `start`: [n] their positions."""
        self._names = list(names)
        self.reset(start)

    def reset(self, positions: Array) -> None:
        """Forget the trajectory and hold `positions` [n]."""
        self._points = [Waypoint(float("-inf"), np.array(positions, dtype=np.float64), None, None)]

    def follow(
        self,
        now: float,
        stamp: float,
        names: Sequence[str],
        points: Sequence[Point],
    ) -> None:
        """Replace the trajectory.

        Args:
            now: s.
            stamp: s, when the trajectory starts; 0: now.
            names: its joints, in any order; all of ours must be there.
            points: of the trajectory; velocities and accelerations may be empty or missing.
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
        state = self._state(now)
        ahead = [point for point in way if point.time > now]
        self._points = [Waypoint(now, *state), *ahead] if ahead else [way[-1]]

    def sample(self, now: float) -> tuple[Array, Array]:
        """Positions [n] and velocities [n] at `now` (s)."""
        positions, velocities, _ = self._state(now)
        return positions, velocities

    def _state(self, now: float) -> tuple[Array, Array, Array]:
        """Positions, velocities and accelerations, each [n], at `now` (s)."""
        points, still = self._points, np.zeros(len(self._names))
        if now >= points[-1].time or len(points) == 1:
            return points[-1].positions.copy(), still, still
        index = next(i for i, point in enumerate(points) if point.time > now)
        if index == 0:
            return points[0].positions.copy(), still, still
        return _between(points[index - 1], points[index], now)


def _waypoint(start: float, point: Point, order: list[int], count: int) -> Waypoint:
    """One point with its joints in our order."""
    offset, positions, given = point[0], point[1], point[2:]
    rates = [*given, (), ()][:2]
    if len(positions) != count or any(len(rate) not in (0, count) for rate in rates):
        raise TrajectoryError(
            f"trajectory of {count} joints has a point of {len(positions)} positions, "
            f"{len(rates[0])} velocities and {len(rates[1])} accelerations"
        )
    at = np.array([positions[i] for i in order], dtype=np.float64)
    speed, force = (
        np.array([rate[i] for i in order], dtype=np.float64) if len(rate) else None
        for rate in rates
    )
    if not all(part is None or np.isfinite(part).all() for part in (at, speed, force)):
        raise TrajectoryError("trajectory has a number that is not finite")
    return Waypoint(start + offset, at, speed, force)


def _between(a: Waypoint, b: Waypoint, now: float) -> tuple[Array, Array, Array]:
    """Positions, velocities and accelerations between two points."""
    span = b.time - a.time
    step = b.positions - a.positions
    if a.velocities is None or b.velocities is None:
        s = (now - a.time) / span
        return a.positions + s * step, step / span, np.zeros_like(step)
    # Polynomial coefficients [k, n] over s in 0..1, the lowest first.
    va, vb = a.velocities * span, b.velocities * span
    if a.accelerations is None or b.accelerations is None:
        rows = [a.positions, va, 3 * step - 2 * va - vb, va + vb - 2 * step]
    else:
        aa, ab = a.accelerations * span**2, b.accelerations * span**2
        rows = [
            a.positions,
            va,
            0.5 * aa,
            10 * step - 6 * va - 4 * vb - 1.5 * aa + 0.5 * ab,
            -15 * step + 8 * va + 7 * vb + 1.5 * aa - ab,
            6 * step - 3 * (va + vb) - 0.5 * (aa - ab),
        ]
    path = Polynomial(np.array(rows), (now - a.time) / span)
    return path.value(0), path.value(1) / span, path.value(2) / span**2


@dataclass(frozen=True)
class Polynomial:
    """n polynomials with coefficients [k, n], the lowest first, at one place s."""

    coefficients: Array
    s: float

    def value(self, derivative: int) -> Array:
        """[n] the values, or those of a derivative."""
        total: Array = np.zeros(self.coefficients.shape[1])
        for power in range(len(self.coefficients) - 1, derivative - 1, -1):
            total = total * self.s + perm(power, derivative) * self.coefficients[power]
        return total
