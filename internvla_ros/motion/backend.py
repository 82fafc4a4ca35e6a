"""What stands between a safe setpoint and a robot: one small interface for every way of moving.

By the time a setpoint comes here it has passed the safety filter. A backend carries it to the
robot by its own means (a trajectory topic, a pose stream, a driver) and alters nothing.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from internvla_ros.motion.limits import Limit
from internvla_ros.motion.profile import Stop
from internvla_ros.motion.se3 import Pose

Array = NDArray[np.float64]


class BackendError(RuntimeError):
    """A robot cannot be reached or does not obey; the text says why and what to do."""


class JointCommand(NamedTuple):
    """Where the joints should be at a time.

    Args:
        positions: [n] rad or m.
        velocities: [n] rad/s or m/s.
        accelerations: [n] rad/s^2 or m/s^2.
        limited: whether something kept the tip from being where the target was.
        reason: what did, empty when nothing.
        tip: pose that the tip has at `positions`, in the base frame.
        stop: how to come to rest from there, should no other command follow.
        limits: what did keep the tip from its target, by name.
    """

    positions: Array
    velocities: Array
    accelerations: Array
    limited: bool
    reason: str
    tip: Pose
    stop: Stop
    limits: tuple[Limit, ...] = ()


class MotionBackend(Protocol):
    """Carries setpoints to one robot. None of the calls may block for long: they are made from
    the control cycle. Times are seconds on the clock of the node."""

    def start(self, joints: JointCommand, t: float) -> None:
        """Take the robot over: it rests at `joints`, setpoints follow from time t.

        Called before the first `setpoint` and again before the first one after a `stop`.

        Raises:
            BackendError: the robot cannot be taken over.
        """

    def setpoint(self, pose: Pose, joints: JointCommand, gripper: float, t: float) -> None:
        """Send one setpoint, to be reached at time t.

        Args:
            pose: the tip in the base frame, the same place as `joints`.
            joints: the arm; its velocities are those with which it passes `positions`.
            gripper: opening wanted, 0 closed or 1 open; to be sent on only when it changes.

        Raises:
            BackendError: the robot does not obey any longer.
        """

    def stop(self, t: float) -> None:
        """The arm is at rest by the last setpoint: let go of it, so that others may move it.

        Without a setpoint before it, stop whatever motion the backend itself has under way.
        """

    @property
    def fault(self) -> str:
        """Why the robot does not obey (a halt, a reflex, a lost connection); empty while it does.

        Polled once a control cycle. While it is not empty the arm is at fault and gets no setpoint.
        """

    @property
    def notice(self) -> str:
        """What slows the robot down while it obeys (a singularity near by); empty when nothing.

        To be shown beside the state; the arm goes on.
        """
