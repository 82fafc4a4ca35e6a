"""What the released SimplerEnv client does with pictures and actions, each in a piece of its own.

Nothing here needs SimplerEnv. A policy's action has 7 components: displacement (m), roll, pitch and
yaw (rad), and the gripper, 0 closed or 1 open.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from internvla_ros.motion.se3 import matrix_to_rotvec, rpy_to_matrix

Array = NDArray[np.float64]
Image = NDArray[np.uint8]

IMAGE_SIZE = 224
"""Width and height that a policy is shown, px."""
GRIPPER = 6
GRIPPER_THRESHOLD = 0.5
STICKY_STEPS = 10
"""Steps in which the Google robot's gripper goes on with what it was told."""


@dataclass(frozen=True)
class Robot:
    """How a robot is driven.

    Attributes:
        unnorm_key: of its actions' statistics in the released checkpoints.
        horizon: chunks that are blended, adaptively.
        rate: steps a simulated second, Hz.
    """

    unnorm_key: str
    horizon: int
    rate: float


ROBOTS = {
    "google_robot": Robot("oxe_rt1", 2, 3.0),
    "widowx": Robot("oxe_bridge", 7, 5.0),
}


def resized(image: Image) -> Image:
    """A picture [h, w, 3] at the policy's size, by area averaging, whatever its aspect ratio."""
    small = cv2.resize(image, (IMAGE_SIZE, IMAGE_SIZE), interpolation=cv2.INTER_AREA)
    return np.asarray(small, np.uint8)


def axis_angle(rpy: ArrayLike) -> Array:
    """Roll, pitch, yaw [3] as axis times angle [3], rad."""
    return matrix_to_rotvec(rpy_to_matrix(rpy))


class Gripper(Protocol):
    """Turns a policy's gripper into SimplerEnv's, step by step through an episode."""

    def command(self, opening: float) -> float:
        """SimplerEnv's gripper input for an opening, 0 closed .. 1 open."""
        ...


class WidowXGripper:
    """An absolute command: +1 open, -1 close."""

    def command(self, opening: float) -> float:
        """See `Gripper.command`."""
        return 2.0 * (opening > GRIPPER_THRESHOLD) - 1.0


class GoogleGripper:
    """A relative command, +1 to close and -1 to open, that sticks for some steps.

    The opening is compared with that at the last time the gripper was told to move, so that a
    change of mind while it moves is not lost but follows when it has moved.
    """

    def __init__(self) -> None:
        self._previous: float | None = None
        self._latched = 0.0
        self._left = 0

    def command(self, opening: float) -> float:
        """See `Gripper.command`."""
        if self._previous is None:
            self._previous = opening
        relative = self._previous - opening
        if self._left == 0 and abs(relative) > GRIPPER_THRESHOLD:
            self._latched, self._left, self._previous = relative, STICKY_STEPS, opening
        if self._left == 0:
            return relative
        self._left -= 1
        return self._latched


def gripper_of(robot: str) -> Gripper:
    """A robot's gripper at the start of an episode."""
    return GoogleGripper() if robot == "google_robot" else WidowXGripper()


def environment_action(action: Array, gripper: Gripper) -> Array:
    """What SimplerEnv's `step` is given [7] for a policy's action [7]."""
    turn = axis_angle(action[3:GRIPPER])
    return np.array([*action[:3], *turn, gripper.command(float(action[GRIPPER]))])
