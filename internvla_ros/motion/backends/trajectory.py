"""A setpoint as a short trajectory that a joint_trajectory_controller can follow.

One point alone would leave the controller nothing to do once it is reached, and a point at time 0
is a step. So each setpoint is sent with its velocities and with the stop that the safety filter
found for it, which is followed only if no other setpoint comes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from internvla_ros.motion.backend import JointCommand
from internvla_ros.robots.embodiment import Gripper

Array = NDArray[np.float64]

_SHORTEST = 1e-3  # s, a quicker stop is a standstill


@dataclass(frozen=True, eq=False)
class Point:
    """A point of a trajectory: s after its start (> 0), then positions, velocities and
    accelerations, each [n]."""

    time: float
    positions: Array
    velocities: Array
    accelerations: Array


def setpoint_trajectory(command: JointCommand, period: float) -> list[Point]:
    """The setpoint, `period` s (> 0) after the trajectory's start, and the stop after it."""
    still = np.zeros_like(command.positions)
    if command.stop.duration < _SHORTEST:
        return [Point(period, command.positions, still, still)]
    first = Point(period, command.positions, command.velocities, command.accelerations)
    return [
        first,
        *(
            Point(period + after, state.positions, state.velocities, state.accelerations)
            for after, state in command.stop.points
        ),
    ]


class GripperMotion:
    """When an opening wanted is to be sent on, and how long the fingers take for it.

    Where the fingers are is reckoned from what was sent; until the first way has ended they are
    taken to be a whole stroke away.
    """

    def __init__(self, gripper: Gripper) -> None:
        self._gripper = gripper
        self._stroke_time = abs(gripper.open - gripper.closed) / gripper.velocity
        self._from: float | None = None
        self._to: float | None = None
        self._began = self._ends = 0.0

    def forget(self) -> None:
        """Others may have moved the fingers: send the next opening whatever it is."""
        self._to = None

    def change(self, opening: float, t: float) -> Point | None:
        """What to send for an opening (0 closed, 1 open) wanted at time t (s); None: nothing new.

        The point holds the first finger's position [1], and the time the way takes.
        """
        if opening == self._to:
            return None
        here = self._opening(t)
        way = 1.0 if here is None else abs(opening - here)
        duration = max(way * self._stroke_time, _SHORTEST)
        self._from, self._to, self._began, self._ends = here, opening, t, t + duration
        position = np.array([self._gripper.position(opening)])
        return Point(duration, position, np.zeros(1), np.zeros(1))

    def _opening(self, t: float) -> float | None:
        """Where the fingers should be by time t; None: nobody knows."""
        if self._to is None or t >= self._ends:
            return self._to
        if self._from is None:
            return None
        share = max(t - self._began, 0.0) / (self._ends - self._began)
        return self._from + share * (self._to - self._from)
