"""Limits as a robot would feel them, checked without knowing how setpoints are made.

Joint positions against their range, divided differences of the positions over the true times
against the limits of velocity, acceleration and jerk, the tip against its workspace and its speeds
by forward kinematics, and the distances between the arm's solids, and to the table, all measured,
against the least allowed.

The tolerances: 1e-9 of a joint's range for positions; 1e-6 of each limit, and what float64 leaves
of a difference, for velocity, acceleration and jerk; a millimetre more than the edge (4 mm) of the
workspace, and a millimetre of clearance; 15 % of the tip's speeds, as joints do not slow down in
proportion.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from internvla_ros.motion.guard import EDGE
from internvla_ros.motion.kinematics import Kinematics
from internvla_ros.motion.se3 import Pose, distance
from internvla_ros.robots.embodiment import Embodiment

Array = NDArray[np.float64]

ROUNDING = 1e-6  # share of a velocity, acceleration or jerk limit
MILLIMETRE = 1e-3
STOPPING = 0.15  # share of the tip's speeds that it may be too fast by
_BEFORE = 3  # setpoints before one, that its jerk is reckoned from


class Checker:
    """Counts every setpoint that breaks a limit.

    `see` collects setpoints, `check` looks at them: it is faster with many at once.

    Args:
        robot: whose limits they are.
        kinematics: of the same joints.
        room: metres to spare at joint positions [n].
        start: [n] joint positions at the beginning. They may be no good place: it must not become
            worse from there.
    """

    def __init__(
        self,
        robot: Embodiment,
        kinematics: Kinematics,
        room: Callable[[Array], float],
        start: Array,
    ) -> None:
        self._robot, self._kinematics, self._room = robot, kinematics, room
        self.violations: Counter[str] = Counter()
        self.worst: dict[str, float] = {}
        """How far the worst setpoint was beyond each limit; negative: within it."""
        self.setpoints = 0
        self._range = robot.position_upper - robot.position_lower
        self._times: list[float] = []
        self._rows: list[Array] = []
        self._most_outside = max(EDGE, self._outside(start[None])[0]) + MILLIMETRE
        self._most_intrusion = max(0.0, -room(start)) + MILLIMETRE

    def rest(self, t: float, q: Array) -> None:
        """At time t (s) the arm rests at joints [n], and has done so for long."""
        self.check()
        period = 1.0 / self._robot.control_rate
        self._times = [t - i * period for i in reversed(range(_BEFORE))]
        self._rows = [q] * _BEFORE

    def see(self, t: float, q: Array) -> None:
        """A setpoint for time t (s), joints [n]."""
        self.setpoints += 1
        if not all(map(math.isfinite, q.tolist())):
            self.violations["finite"] += 1
            return
        self._times.append(t)
        self._rows.append(q)

    def check(self) -> None:
        """Look at what was seen since the last time."""
        new = len(self._rows) - _BEFORE
        if new <= 0:
            return
        times, rows = np.array(self._times), np.array(self._rows)
        self._differences(times, rows, new)
        poses = [self._kinematics.forward(q) for q in rows[-new - 1 :]]
        self._note("tip speed", self._speeds(poses, np.diff(times)[-new:]), STOPPING)
        rows = rows[-new:]
        beyond = np.maximum(self._robot.position_lower - rows, rows - self._robot.position_upper)
        self._note("position", (beyond / self._range).max(axis=1), 1e-9)
        self._note("workspace", self._outside(rows), self._most_outside)
        self._note("clearance", -np.array([self._room(q) for q in rows]), self._most_intrusion)
        self._times, self._rows = self._times[-_BEFORE:], self._rows[-_BEFORE:]

    def _differences(self, times: Array, rows: Array, new: int) -> None:
        """Divided differences: means of the derivatives over the time that they span."""
        steps, robot = np.diff(times), self._robot
        shortest = np.minimum(np.minimum(steps[:-2], steps[1:-1]), steps[2:])[:, None]
        limits = (robot.velocity, robot.acceleration, robot.jerk)
        for order, name in enumerate(("velocity", "acceleration", "jerk"), start=1):
            spans = times[order:] - times[:-order]
            rows, limit = order * np.diff(rows, axis=0) / spans[:, None], limits[order - 1]
            rounding = 2.0**order * 4e-16 * math.pi / shortest**order
            # Times are seconds since an epoch; what they are rounded by moves the differences too.
            rounding = rounding + ROUNDING * limit
            excess = (np.abs(rows[-new:]) - limit - rounding) / limit
            self._note(name, excess.max(axis=1), 0.0)

    def _speeds(self, poses: list[Pose], steps: Array) -> Array:
        """[k] the tip's mean speed from each of k + 1 poses to the next, or its turning's, over its
        limit, less one."""
        limits = self._robot.tip_limits
        ways = [distance(a, b) for a, b in pairwise(poses)]
        result: Array = (np.array(ways) / [limits.speed, limits.turn]).max(axis=1) / steps - 1.0
        return result

    def _outside(self, rows: Array) -> Array:
        """[k] m from the workspace to the tip at joint positions [k, n]; negative inside."""
        lower, upper = self._robot.workspace
        tips = np.array([self._kinematics.place(q) for q in rows])
        result: Array = np.maximum(lower - tips, tips - upper).max(axis=1)
        return result

    def _note(self, name: str, excess: Array, tolerance: float) -> None:
        self.worst[name] = max(self.worst.get(name, -math.inf), float(excess.max()))
        broken = int((excess > tolerance).sum())
        if broken:
            self.violations[name] += broken
