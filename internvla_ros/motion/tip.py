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
        lower, upper = embodiment.workspace
        self._middle, self._half = 0.5 * (lower + upper), 0.5 * (upper - lower)
        self._box = tuple(zip(lower.tolist(), upper.tolist(), strict=True))
        self._bends = np.hstack(kinematics.bends())

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
        x, y, z, a, b, c = tip.jacobian.dot(velocities).tolist()
        shift = math.sqrt(x * x + y * y + z * z) / self._speed
        return max(shift, math.sqrt(a * a + b * b + c * c) / self._turn)

    def most(self, tip: Tip, moved: Array, velocities: Array) -> tuple[list[float], list[float]]:
        """Bounds [k] for `outside` (m) and `excess` with the joints moved [k, n] from where the
        tip is, at velocities [k, n]."""
        far, fast, n = np.abs(moved), np.abs(velocities), len(tip.q)
        bent = far.dot(self._bends)  # [k, 2n] of the Jacobian's shifting rows, then its turning
        beyond = np.abs(moved.dot(tip.jacobian.T)[:, :3] + (tip.pose.position - self._middle))
        beyond -= self._half
        outside = np.maximum.reduce(beyond, 1) + np.vecdot(bent[:, :n], far) * 0.5
        twists = velocities.dot(tip.jacobian.T).reshape(-1, 2, 3)
        speeds = np.sqrt(np.vecdot(twists, twists))
        speeds += np.vecdot(bent.reshape(-1, 2, n), fast[:, None])
        shift, turn = self._speed, self._turn
        return outside.tolist(), [max(v / shift, w / turn) for v, w in speeds.tolist()]

    def _outside(self, position: list[float]) -> float:
        beyond = -math.inf
        for x, (lower, upper) in zip(position, self._box, strict=True):
            beyond = max(beyond, lower - x, x - upper)
        return beyond
