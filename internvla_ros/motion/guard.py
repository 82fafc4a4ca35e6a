"""The last thing before a robot: joints move as wished only as long as they can still stop safely.

A state is entered only after its own way to a standstill has been looked at: it must stay within
the joints' position limits, within the workspace, clear of obstacles and of the arm itself, and
must not carry the tip faster than allowed. Where it does not, the arm brakes instead, along the
way that was found good when the present state was entered. So a safe stop exists at every moment,
whatever is wished and even if nothing is wished ever again.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from internvla_ros.motion.kinematics import Kinematics
from internvla_ros.motion.limits import Limit, Reasons
from internvla_ros.motion.profile import JointState, Stop, VelocityProfile
from internvla_ros.robots.embodiment import Embodiment

Array = NDArray[np.float64]

Room = Callable[[Array], float]
"""Metres to spare at joint positions [n] before the arm is closer to anything than it may be."""

EDGE = 0.004  # m: how far past the workspace's edge the tip may come
MARGIN = 0.99  # share of each limit that is used, leaving the rest to rounding
_TRAVEL = 0.06  # rad (or m) that the fastest joint moves between two looks along a stop
_NEAR = 0.04  # m from an edge or an obstacle; nearer, no moment of a stop is left out
_ROUNDING = 1e-3
_EASED = 0.7  # share of a wish that is tried when the whole makes the tip too fast
_STOP_EXCESS = 1.1  # of the tip's limit while braking, as joints do not slow down in proportion
_TEXTS = {
    Limit.TIP_SPEED: "speed limit of the tip",
    Limit.WORKSPACE: "workspace: at its edge",
    Limit.CLEARANCE: "clearance: too close to something",
}


class Guard:
    """Joint states one after the other, each of them with a safe way to a standstill.

    Args:
        embodiment: joint limits, workspace and the tip's speeds.
        kinematics: of the same joints.
        room: how much room there is around the arm; None: nothing is known that it could hit.
    """

    def __init__(
        self, embodiment: Embodiment, kinematics: Kinematics, room: Room | None = None
    ) -> None:
        self._names = embodiment.joints
        self._kinematics = kinematics
        self._room = room
        self._velocity = MARGIN * embodiment.velocity
        self._acceleration = MARGIN * embodiment.acceleration
        self._curve = embodiment.velocity_curve
        self._tip_speed, self._tip_turn = embodiment.tip_limits.speed, embodiment.tip_limits.turn
        lower, upper = embodiment.workspace
        self._box = tuple(zip(lower.tolist(), upper.tolist(), strict=True))
        self._profile = VelocityProfile(
            self._acceleration,
            MARGIN * embodiment.jerk,
            embodiment.position_lower,
            embodiment.position_upper,
        )
        self.reset(embodiment.ready)

    def reset(self, q: ArrayLike) -> None:
        """Rest at joint positions q [n], which are not questioned."""
        self.state = JointState.at_rest(q)
        self.stop = self._profile.stop(self.state)

    def move(self, wish: Array, step: float, reasons: Reasons) -> bool:
        """Let `step` seconds pass towards joint velocities [n]; whether it had to brake instead.

        What kept it from the velocities goes to `reasons`.
        """
        wish = self._slowed(wish, step, reasons)
        state, stop = self._try(wish, step, reasons)
        danger = self._danger(state, stop)
        if danger is Limit.TIP_SPEED:
            reasons.add(danger, _TEXTS[danger])
            state, stop = self._try(_EASED * wish, step, reasons)
            danger = self._danger(state, stop)
        if danger is not None:
            reasons.add(danger, f"{_TEXTS[danger]}: braking")
            self.brake(step)
            return True
        self.state, self.stop = state, stop
        return False

    def _try(self, wish: Array, step: float, reasons: Reasons) -> tuple[JointState, Stop]:
        """What `step` seconds towards joint velocities [n] would lead to, each joint in range."""
        state = self._profile.towards(self.state, wish, step)
        stop = self._profile.stop(state)
        within = stop.within & self._below_curve(state, stop)
        if within.all():
            return state, stop
        reasons.add(Limit.POSITION, f"position limit of {self._named(~within)}")
        state = _mixed(within, state, self._profile.brake(self.state, step))
        return state, self._profile.stop(state)

    def brake(self, step: float) -> None:
        """Let `step` seconds of braking pass; a state at rest stays as it is."""
        self.state = self._profile.brake(self.state, step)
        self.stop = self._profile.stop(self.state)

    def _slowed(self, wish: Array, step: float, reasons: Reasons) -> Array:
        """The wish [n] within the joints' velocities, and as a whole within the tip's."""
        wish = np.minimum(np.maximum(wish, -self._velocity), self._velocity)
        if self._curve is not None:
            ahead = self.state.positions + self.state.velocities * step
            low, high = self._curve.limits(ahead)
            wish = np.minimum(np.maximum(wish, MARGIN * low), MARGIN * high)
        excess = self._excess(self.state.positions, wish) / MARGIN
        if excess <= 1.0:
            return wish
        reasons.add(Limit.TIP_SPEED, _TEXTS[Limit.TIP_SPEED])
        return wish / excess

    def _below_curve(self, state: JointState, stop: Stop) -> NDArray[np.bool_]:
        """[n] whether each joint slows down in time towards the ends of its range."""
        if self._curve is None:
            return np.ones(len(self._names), dtype=bool)
        q = np.array([state.positions, *(point.positions for _, point in stop.points)])
        v = np.array([state.velocities, *(point.velocities for _, point in stop.points)])
        low, high = self._curve.limits(q)
        below = (v >= low - _ROUNDING) & (v <= high + _ROUNDING)
        return np.logical_and.reduce(below, axis=0)

    def _danger(self, state: JointState, stop: Stop) -> Limit | None:
        """Which limit forbids a state, or the stop from it."""
        here = self.state.positions
        points = _looked_at(state, stop)
        if self._too_fast(state, 1.0) or any(self._too_fast(p, _STOP_EXCESS) for p in points[:-1]):
            return Limit.TIP_SPEED
        every = (state, *(point for _, point in stop.points))
        outside = max(self.outside(point.positions) for point in (state, *points))
        if outside > EDGE - _NEAR:
            outside = max(self.outside(point.positions) for point in every)
        if outside > EDGE and outside > self.outside(here):
            return Limit.WORKSPACE
        if self._room is None:
            return None
        room = min(self._room(point.positions) for point in (state, *points))
        if room < _NEAR:
            room = min(self._room(point.positions) for point in every)
        return Limit.CLEARANCE if room < 0.0 and room < self._room(here) else None

    def _too_fast(self, state: JointState, share: float) -> bool:
        """Whether the tip is faster than a share of its limit, and faster than it is now."""
        excess = self._excess(state.positions, state.velocities)
        if excess <= share:
            return False
        return excess > self._excess(self.state.positions, self.state.velocities)

    def _excess(self, q: Array, velocities: Array) -> float:
        """The tip's speed at joint positions and velocities over its limit, or its turning's."""
        x, y, z, a, b, c = (self._kinematics.jacobian(q) @ velocities).tolist()
        shift = math.sqrt(x * x + y * y + z * z) / self._tip_speed
        return max(shift, math.sqrt(a * a + b * b + c * c) / self._tip_turn)

    def outside(self, q: Array) -> float:
        """How far the tip is outside the workspace at joint positions q [n], m; negative inside."""
        position = self._kinematics.forward(q).position.tolist()
        beyond = -math.inf
        for x, (lower, upper) in zip(position, self._box, strict=True):
            beyond = max(beyond, lower - x, x - upper)
        return beyond

    def _named(self, chosen: NDArray[np.bool_]) -> str:
        return ", ".join(name for name, yes in zip(self._names, chosen, strict=True) if yes)


def _looked_at(state: JointState, stop: Stop) -> list[JointState]:
    """The points of a stop that are looked at, as many as its way asks for; the last one always."""
    points = [point for _, point in stop.points]
    way = float(np.abs(points[-1].positions - state.positions).max())
    looks = min(1 + int(way / _TRAVEL), len(points))
    return [points[len(points) * (i + 1) // looks - 1] for i in range(looks)]


def _mixed(chosen: NDArray[np.bool_], a: JointState, b: JointState) -> JointState:
    """Joints of `a` where chosen [n], of `b` elsewhere."""
    return JointState(
        np.where(chosen, a.positions, b.positions),
        np.where(chosen, a.velocities, b.velocities),
        np.where(chosen, a.accelerations, b.accelerations),
    )
