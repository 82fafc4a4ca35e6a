"""A smooth pose that follows a stream of target poses, however the stream jumps."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from internvla_ros.motion.se3 import Pose, matrix_to_rotvec, rotvec_to_matrix

Array = NDArray[np.float64]

_GAIN = 15.0  # 1/s: how quickly a small gap is closed
_BRAKING = 0.4  # share of the acceleration counted on when closing a large gap


class Reference:
    """Follows targets within bounds on speed and acceleration, shifting and turning apart.

    A target that moves steadily, no faster than the bounds, is followed without lag. One that
    jumps is approached in a straight line and reached without overshoot.

    Args:
        speed, acceleration: m/s and m/s^2.
        turn, turn_acceleration: rad/s and rad/s^2.
    """

    def __init__(
        self, speed: float, acceleration: float, turn: float, turn_acceleration: float
    ) -> None:
        self._shift = _Follower(speed, acceleration)
        self._turn = _Follower(turn, turn_acceleration)
        self._pose = Pose.identity()
        self._target = self._pose
        self.speed = 1.0
        """Share of the greatest speed and turn that is used, 0..1."""

    @property
    def pose(self) -> Pose:
        """Where the reference is."""
        return self._pose

    @property
    def saturated(self) -> bool:
        """Whether the last step was cut to the greatest speed."""
        return self._shift.saturated or self._turn.saturated

    def reset(self, pose: Pose) -> None:
        """Stand still at `pose`."""
        self._pose = self._target = pose
        self._shift.velocity = np.zeros(3)
        self._turn.velocity = np.zeros(3)

    def towards(self, target: Pose, step: float) -> Pose:
        """The pose `step` seconds later, following a target that is at `target` by then."""
        here, before = self._pose, self._target
        shift = self._shift.move(
            target.position - here.position, target.position - before.position, step, self.speed
        )
        turn = self._turn.move(
            matrix_to_rotvec(target.rotation @ here.rotation.T),
            matrix_to_rotvec(target.rotation @ before.rotation.T),
            step,
            self.speed,
        )
        self._target = target
        self._pose = Pose(here.position + shift, rotvec_to_matrix(turn) @ here.rotation)
        return self._pose

    def correct(self, pose: Pose, step: float) -> None:
        """Say where the last step of `step` seconds really led: the motion goes on from there."""
        shift = pose.position - self._pose.position
        turn = matrix_to_rotvec(pose.rotation @ self._pose.rotation.T)
        self._shift.velocity = self._shift.velocity + shift / step
        self._turn.velocity = self._turn.velocity + turn / step
        self._pose = pose


class _Follower:
    """The law of following for one vector quantity [3]."""

    def __init__(self, speed: float, acceleration: float) -> None:
        self._speed, self._acceleration = speed, acceleration
        self.velocity: Array = np.zeros(3)
        self.saturated = False

    def move(self, gap: Array, target_moved: Array, step: float, share: float) -> Array:
        """The displacement [3] in `step` seconds, given the gap to the target by then.

        `target_moved` is what the target moved in these seconds: a velocity to keep up with,
        unless it is so large that it was a jump. `share` is that of the greatest speed to be used.
        """
        speed = share * self._speed
        leap = _length(target_moved) > speed * step
        keep_up = np.zeros(3) if leap else target_moved
        wish = keep_up / step + self._closing(gap - keep_up)
        self.saturated = _length(wish) > speed * (1 + 1e-9)
        wish = _shortened(wish, speed)
        change = _shortened(wish - self.velocity, self._acceleration * step)
        self.velocity = self.velocity + change
        return self.velocity * step

    def _closing(self, gap: Array) -> Array:
        """Velocity [3] that closes a gap: proportional when near, braking-bound when far."""
        length, braking = _length(gap), _BRAKING * self._acceleration
        near = braking / _GAIN**2  # up to this gap the proportional law brakes gently enough
        if length <= near:
            return _GAIN * gap
        return gap * (math.sqrt(braking * (2.0 * length - near)) / length)


def _length(v: Array) -> float:
    return math.sqrt(float(v @ v))


def _shortened(v: Array, limit: float) -> Array:
    length = _length(v)
    return v if length <= limit else v * (limit / length)
