"""The tip's own limits: how fast it may go and where, for a whole motion of the joints at once.

About one state of the joints the tip's place is taken to be linear in them, and a bound on how it
bends (see `reach.bends`) covers the rest: a bound found here is never less than what is.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from internvla_ros.motion.kinematics import Kinematics, Tip
from internvla_ros.robots.embodiment import Embodiment

Array = NDArray[np.float64]


class TipLimits:
    """One robot's workspace and the speeds of its tip.

    Args:
        embodiment: with both.
        kinematics: of its joints.
    """

    def __init__(self, embodiment: Embodiment, kinematics: Kinematics) -> None:
        self._kinematics = kinematics
        self._speed, self._turn = embodiment.tip_limits.speed, embodiment.tip_limits.turn
        self._per_speed = np.array([1.0 / self._speed, 1.0 / self._turn])
        lower, upper = embodiment.workspace
        self._middle, self._half = 0.5 * (lower + upper), 0.5 * (upper - lower)
        self._box = tuple(zip(lower.tolist(), upper.tolist(), strict=True))
        self._bends = np.hstack(kinematics.bends())

    def at(self, q: Array) -> Tip:
        """The tip at joint positions q [n]."""
        return self._kinematics.look(q)

    def outside(self, tip: Tip) -> float:
        """How far the tip is outside the workspace, m; negative inside."""
        return self._outside(tip.pose.position.tolist())

    def outside_at(self, q: Array) -> float:
        """As `outside`, at joint positions q [n]."""
        return self._outside(self._kinematics.place(q).tolist())

    def excess(self, tip: Tip, velocities: Array) -> float:
        """The tip's speed at joint velocities [n] over its limit, or its turning's."""
        return self._excess(tip.jacobian.dot(velocities))

    def excess_at(self, q: Array, velocities: Array) -> float:
        """As `excess`, at joint positions q [n]."""
        return self._excess(self._kinematics.twist(q, velocities))

    def most(self, tip: Tip, rows: Array) -> tuple[list[float], list[float]]:
        """Bounds [k] for `outside` (m) and `excess` at each of some rows [k, 3, n]: how far the
        joints have moved from where the tip is, their velocities, and what does not matter."""
        k, _, n = rows.shape
        twists = rows.reshape(3 * k, n).dot(tip.jacobian.T).reshape(k, 3, 2, 3)
        sizes = np.abs(rows)
        far, fast = sizes[:, 0], sizes[:, 1:2]
        bent = far.dot(self._bends).reshape(k, 2, n)  # of the Jacobian's rows: shifting, turning
        beyond = np.abs(twists[:, 0, 0] + (tip.pose.position - self._middle))
        beyond -= self._half
        outside = np.maximum.reduce(beyond, 1) + np.vecdot(bent[:, 0], far) * 0.5
        speeds = np.sqrt(np.vecdot(twists[:, 1], twists[:, 1]))
        speeds += np.vecdot(bent, fast)
        speeds *= self._per_speed
        return outside.tolist(), np.maximum.reduce(speeds, 1).tolist()

    def _excess(self, twist: Array) -> float:
        x, y, z, a, b, c = twist.tolist()
        return max(math.hypot(x, y, z) / self._speed, math.hypot(a, b, c) / self._turn)

    def _outside(self, position: list[float]) -> float:
        beyond = -math.inf
        for x, (lower, upper) in zip(position, self._box, strict=True):
            beyond = max(beyond, lower - x, x - upper)
        return beyond
