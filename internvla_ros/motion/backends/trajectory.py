"""A setpoint as a short trajectory that a joint_trajectory_controller can follow.

One point alone would leave the controller nothing to do once it is reached, and a point at time 0
is a step. So each setpoint is sent as two points: the setpoint itself with its velocities, and a
stop within the limits after it, which is followed only if no other setpoint comes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from internvla_ros.motion.backend import JointCommand
from internvla_ros.robots.embodiment import Embodiment, Gripper

Array = NDArray[np.float64]

_STOP_TIME = 0.1  # s, the least in which an arm that gets no further setpoint comes to rest


@dataclass(frozen=True, eq=False)
class Point:
    """A point of a trajectory: s after its start (> 0), positions [n], velocities [n]."""

    time: float
    positions: Array
    velocities: Array


def setpoint_trajectory(
    command: JointCommand, robot: Embodiment, period: float
) -> tuple[Point, Point]:
    """The setpoint, `period` s (> 0) after the trajectory's start, and a stop after it."""
    ends, stop_time = _stop_after(command, robot)
    return (
        Point(period, command.positions, command.velocities),
        Point(period + stop_time, ends, np.zeros_like(ends)),
    )


def _stop_after(command: JointCommand, robot: Embodiment) -> tuple[Array, float]:
    """Where evenly braking from a setpoint ends [n], within the limits, and s until then."""
    speed = np.abs(command.velocities)
    stop_time = max(_STOP_TIME, float((speed / robot.acceleration).max()))
    ends = command.positions + 0.5 * stop_time * command.velocities
    return np.clip(ends, robot.position_lower, robot.position_upper), stop_time


class GripperMotion:
    """When an opening wanted is to be sent on, and how long the fingers take for it.

    Where the fingers are is reckoned from what was sent, at the gripper's own speed; before the
    first command they are taken to be a whole stroke away.
    """

    def __init__(self, gripper: Gripper) -> None:
        self._gripper = gripper
        stroke = abs(gripper.open - gripper.closed)
        self._stroke_time = stroke / gripper.velocity
        self._from = 0.0
        self._to: float | None = None
        self._began = 0.0

    def forget(self) -> None:
        """Others may have moved the fingers: send the next opening whatever it is."""
        self._to = None

    def change(self, opening: float, t: float) -> Point | None:
        """What to send for an opening (0 closed, 1 open) wanted at time t (s); None: nothing new.

        The point holds the first finger's position [1], and the time the way takes.
        """
        if opening == self._to:
            return None
        way = 1.0 if self._to is None else abs(opening - self._opening(t))
        self._from = opening if self._to is None else self._opening(t)
        self._to, self._began = opening, t
        position = np.array([self._gripper.position(opening)])
        return Point(max(way * self._stroke_time, 1e-3), position, np.zeros(1))

    def _opening(self, t: float) -> float:
        """Where the fingers should be by time t."""
        assert self._to is not None
        way = self._to - self._from
        done = max(t - self._began, 0.0) / self._stroke_time
        return self._to if done >= abs(way) else self._from + float(np.sign(way)) * done
