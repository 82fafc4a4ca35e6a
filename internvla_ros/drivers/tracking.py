"""Joint velocities that lead along a path without ever breaking a limit, one cycle at a time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from internvla_ros.motion.profile import JointState, VelocityProfile
from internvla_ros.robots.embodiment import Embodiment

Array = NDArray[np.float64]

_MARGIN = 0.9  # share of each limit that is used: the robot judges sampled signals
_GAIN = 15.0  # 1/s: how quickly a small gap to the path is closed
_BRAKING = 0.5  # share of the acceleration counted on when closing a large gap


@dataclass(frozen=True, eq=False)
class Limits:
    """Of n joints, each [n]: rad, rad/s, rad/s^2, rad/s^3."""

    lower: Array
    upper: Array
    velocity: Array
    acceleration: Array
    jerk: Array

    @staticmethod
    def of(robot: Embodiment) -> Limits:
        """A robot's own."""
        return Limits(
            robot.position_lower,
            robot.position_upper,
            robot.velocity,
            robot.acceleration,
            robot.jerk,
        )


class Tracker:
    """Velocities commanded to a robot, each within acceleration and jerk of the one before."""

    def __init__(self, limits: Limits) -> None:
        self._velocity = _MARGIN * limits.velocity
        self._acceleration = _MARGIN * limits.acceleration
        self._profile = VelocityProfile(
            self._acceleration, _MARGIN * limits.jerk, limits.lower, limits.upper
        )
        self._state = JointState.at_rest(np.zeros_like(limits.lower))

    @property
    def at_rest(self) -> bool:
        """Whether the last velocities were zero, to stay so."""
        state = self._state
        return not state.velocities.any() and not state.accelerations.any()

    def reset(self) -> None:
        """The robot stands still."""
        self._state = JointState.at_rest(np.zeros_like(self._velocity))

    def resume(self, velocities: Array, accelerations: Array) -> None:
        """Go on from what the robot made of the last command, each [n].

        A robot that misses a command goes on by itself: the next one has to fit to that.
        """
        bounded = np.clip(accelerations, -self._acceleration, self._acceleration)
        self._state = JointState(self._state.positions, velocities, bounded)

    def follow(self, here: Array, path: Array, speed: Array, step: float) -> Array:
        """Velocities [n] for the next `step` s.

        Args:
            here: [n] rad, where the robot is being moved to at present.
            path, speed: [n] rad and rad/s, where it should be and how fast it should be going.
        """
        wish = np.clip(speed + self._closing(path - here), -self._velocity, self._velocity)
        return self._advance(self._profile.towards(self._state, wish, step))

    def brake(self, step: float) -> Array:
        """Velocities [n] for the next `step` s on the way to a standstill."""
        state = self._profile.towards(self._state, np.zeros_like(self._velocity), step)
        still = np.abs(state.velocities).max() < 1e-6 and np.abs(state.accelerations).max() < 1e-6
        return self._advance(JointState.at_rest(state.positions) if still else state)

    def _advance(self, state: JointState) -> Array:
        self._state = state
        return state.velocities

    def _closing(self, gap: Array) -> Array:
        """[n] velocity towards the path: proportional when near, braking-bound when far."""
        braking = _BRAKING * self._acceleration
        near = braking / _GAIN**2  # up to this gap the proportional law brakes gently enough
        far = np.sqrt(braking * np.maximum(2.0 * np.abs(gap) - near, 0.0))
        result: Array = np.where(np.abs(gap) <= near, _GAIN * gap, np.sign(gap) * far)
        return result
