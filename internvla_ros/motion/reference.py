"""A smooth pose that follows a stream of target poses, however the stream jumps."""

from __future__ import annotations

import math

import numpy as np
import pinocchio as pin
from numpy.typing import NDArray

from internvla_ros.motion.se3 import Pose

Array = NDArray[np.float64]
Vector = tuple[float, float, float]
"""Three numbers are added up faster one by one than as an array."""

_NONE: Vector = (0.0, 0.0, 0.0)
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
        self._shift.velocity = self._turn.velocity = _NONE

    def towards(self, target: Pose, step: float) -> Pose:
        """The pose `step` seconds later, following a target that is at `target` by then."""
        here, before = self._pose, self._target
        shift, turn = _way(here, target)
        shifted, turned = (_NONE, _NONE) if target is before else _way(before, target)
        shift = self._shift.move(shift, shifted, step, self.speed)
        turn = self._turn.move(turn, turned, step, self.speed)
        rotation = pin.exp3(np.array(turn)).dot(here.rotation)
        self._target, self._pose = target, Pose.of(here.position + shift, rotation)
        return self._pose

    def correct(self, pose: Pose, step: float) -> None:
        """Say where the last step of `step` seconds really led: the motion goes on from there."""
        shift, turn = _way(self._pose, pose)
        self._shift.correct(shift, step)
        self._turn.correct(turn, step)
        self._pose = pose


class _Follower:
    """The law of following for one vector quantity."""

    def __init__(self, speed: float, acceleration: float) -> None:
        self._speed, self._acceleration = speed, acceleration
        self._braking = _BRAKING * acceleration
        self._near = self._braking / _GAIN**2
        """Up to this gap the proportional law brakes gently enough."""
        self.velocity = _NONE
        self.saturated = False

    def move(self, gap: Vector, target_moved: Vector, step: float, share: float) -> Vector:
        """The displacement in `step` seconds, given the gap to the target by then.

        `target_moved` is what the target moved in these seconds: a velocity to keep up with,
        unless it is so large that it was a jump. `share` is that of the greatest speed to be used.
        """
        speed = share * self._speed
        x, y, z = gap
        u, v, w = target_moved
        if math.hypot(u, v, w) > speed * step:
            u = v = w = 0.0
        x, y, z = x - u, y - v, z - w
        gain, keep_up = self._gain(math.hypot(x, y, z)), 1.0 / step
        x, y, z = u * keep_up + x * gain, v * keep_up + y * gain, w * keep_up + z * gain
        length = math.hypot(x, y, z)
        self.saturated = length > speed * (1 + 1e-9)
        if length > speed:
            cut = speed / length
            x, y, z = x * cut, y * cut, z * cut
        u, v, w = self.velocity
        x, y, z = x - u, y - v, z - w
        length, most = math.hypot(x, y, z), self._acceleration * step
        cut = 1.0 if length <= most else most / length
        x, y, z = self.velocity = u + x * cut, v + y * cut, w + z * cut
        return x * step, y * step, z * step

    def correct(self, missed: Vector, step: float) -> None:
        """The last displacement, of `step` seconds, was another one by so much."""
        (x, y, z), (u, v, w) = missed, self.velocity
        self.velocity = u + x / step, v + y / step, w + z / step

    def _gain(self, gap: float) -> float:
        """1/s: velocity a gap that closes it, proportional when near, braking-bound when far."""
        if gap <= self._near:
            return _GAIN
        return math.sqrt(self._braking * (2.0 * gap - self._near)) / gap


def _way(a: Pose, b: Pose) -> tuple[Vector, Vector]:
    """m and rad (a rotation vector), along the base's axes, that lead from pose a to pose b."""
    (u, v, w), (x, y, z) = a.position.tolist(), b.position.tolist()
    i, j, k = pin.log3(b.rotation.dot(a.rotation.T)).tolist()
    return (x - u, y - v, z - w), (i, j, k)
