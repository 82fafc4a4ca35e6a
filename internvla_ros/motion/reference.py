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
        shift = self._shift.move(
            _shift_between(here, target), _shift_between(before, target), step, self.speed
        )
        turn = self._turn.move(
            _turn_between(here, target), _turn_between(before, target), step, self.speed
        )
        self._target = target
        turned = pin.exp3(np.array(turn)).dot(here.rotation)
        self._pose = Pose.of(here.position + shift, turned)
        return self._pose

    def correct(self, pose: Pose, step: float) -> None:
        """Say where the last step of `step` seconds really led: the motion goes on from there."""
        for follower, missed in (
            (self._shift, _shift_between(self._pose, pose)),
            (self._turn, _turn_between(self._pose, pose)),
        ):
            follower.velocity = _sum(follower.velocity, _times(missed, 1.0 / step))
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
        leap = math.hypot(*target_moved) > speed * step
        keep_up = _NONE if leap else target_moved
        left = _sum(gap, _times(keep_up, -1.0))
        wish = _sum(_times(keep_up, 1.0 / step), self._closing(left))
        self.saturated = math.hypot(*wish) > speed * (1 + 1e-9)
        change = _sum(_shortened(wish, speed), _times(self.velocity, -1.0))
        self.velocity = _sum(self.velocity, _shortened(change, self._acceleration * step))
        return _times(self.velocity, step)

    def _closing(self, gap: Vector) -> Vector:
        """Velocity that closes a gap: proportional when near, braking-bound when far."""
        length = math.hypot(*gap)
        if length <= self._near:
            return _times(gap, _GAIN)
        return _times(gap, math.sqrt(self._braking * (2.0 * length - self._near)) / length)


def _shift_between(a: Pose, b: Pose) -> Vector:
    """m along the base's axes from pose a to pose b."""
    return tuple((b.position - a.position).tolist())


def _turn_between(a: Pose, b: Pose) -> Vector:
    """The rotation vector (rad, along the base's axes) that turns pose a to pose b."""
    return tuple(pin.log3(b.rotation.dot(a.rotation.T)).tolist())


def _sum(a: Vector, b: Vector) -> Vector:
    return a[0] + b[0], a[1] + b[1], a[2] + b[2]


def _times(v: Vector, factor: float) -> Vector:
    return v[0] * factor, v[1] * factor, v[2] * factor


def _shortened(v: Vector, limit: float) -> Vector:
    length = math.hypot(*v)
    return v if length <= limit else _times(v, limit / length)
