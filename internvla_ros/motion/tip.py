"""The tip's own limits: how fast it may go and where, for a whole motion of the joints at once.

About one state of the joints the tip's place is taken to be linear in them, and a bound on how it
bends (see `reach.bends`) covers the rest: a bound found here is never less than what is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from internvla_ros.motion.kinematics import Kinematics
from internvla_ros.motion.se3 import Pose
from internvla_ros.robots.embodiment import Embodiment

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Tip:
    """The tip at one place of the joints.

    Attributes:
        q: [n] joint positions.
        pose: of the tip, in the base frame.
        jacobian: [6, n], see `Kinematics.jacobian`.
    """

    q: Array
    pose: Pose
    jacobian: Array


class TipLimits:
    """One robot's workspace and the speeds of its tip.

    Args:
        embodiment: with both.
        kinematics: of its joints.
    """

    def __init__(self, embodiment: Embodiment, kinematics: Kinematics) -> None:
        self._kinematics = kinematics
        self._speed, self._turn = embodiment.tip_limits.speed, embodiment.tip_limits.turn
        self._lower, self._upper = embodiment.workspace
        self._box = tuple(zip(self._lower.tolist(), self._upper.tolist(), strict=True))
        self._bend, self._twist = kinematics.bends()

    def at(self, q: Array) -> Tip:
        """The tip at joint positions q [n]."""
        jacobian, pose = self._kinematics.look(q)
        return Tip(q, pose, jacobian)

    def outside(self, tip: Tip) -> float:
        """How far the tip is outside the workspace, m; negative inside."""
        return self._outside(tip.pose.position.tolist())

    def outside_at(self, q: Array) -> float:
        """As `outside`, at joint positions q [n]."""
        return self._outside(self._kinematics.place(q).tolist())

    def excess(self, tip: Tip, velocities: Array) -> float:
        """The tip's speed at joint velocities [n] over its limit, or its turning's."""
        x, y, z, a, b, c = (tip.jacobian @ velocities).tolist()
        shift = math.sqrt(x * x + y * y + z * z) / self._speed
        return max(shift, math.sqrt(a * a + b * b + c * c) / self._turn)

    def most_outside(self, tip: Tip, path: Array) -> Array:
        """[k] bounds for `outside`, m, at joint positions [k, n] around those of the tip."""
        moved = path - tip.q
        places = tip.pose.position + moved @ tip.jacobian[:3].T
        beyond = np.maximum(self._lower - places, places - self._upper).max(axis=1)
        far = np.abs(moved)
        result: Array = beyond + 0.5 * np.einsum("ki,ki->k", far @ self._bend, far)
        return result

    def most_excess(self, tip: Tip, path: Array, velocities: Array) -> Array:
        """[k] bounds for `excess` at joint positions and velocities [k, n] around the tip's."""
        far, fast = np.abs(path - tip.q), np.abs(velocities)
        twists = velocities @ tip.jacobian.T
        squares = twists * twists
        shift = np.sqrt(squares[:, :3].sum(axis=1)) + np.einsum("ki,ki->k", far @ self._bend, fast)
        turn = np.sqrt(squares[:, 3:].sum(axis=1)) + np.einsum("ki,ki->k", far @ self._twist, fast)
        return np.maximum(shift / self._speed, turn / self._turn)

    def _outside(self, position: list[float]) -> float:
        beyond = -math.inf
        for x, (lower, upper) in zip(position, self._box, strict=True):
            beyond = max(beyond, lower - x, x - upper)
        return beyond
